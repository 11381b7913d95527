//! Facts and what is found in them: a table of incidents, and what must hold of every report.

mod incidents;

use std::time::Duration;

use super::{
    Cause, Finding, Look, Severity, Why,
    facts::{Blocker, Clients, Facts, Holder, Lock, Outbox, Pool, Reach, Reads, Refusals, Server, Who},
    findings::{figures, findings, unknown},
    page,
};
use crate::backend::doing::Phase;
use incidents::{Change, INCIDENTS};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn who(application_name: &str) -> Who {
    Who { application_name: application_name.to_owned(), user: "app".to_owned() }
}

fn server(name: &str) -> Server {
    Server {
        name: name.to_owned(),
        is_primary: name == "main",
        is_replica: name == "replica",
        hosts: 1,
        host: format!("{name}:5432"),
        open: 3,
        open_max: 20,
        ..Server::default()
    }
}

fn pool(name: &str, server: &str) -> Pool {
    Pool {
        name: name.to_owned(),
        server: server.to_owned(),
        max_connections: 4,
        max_waiting: 100,
        max_pinned: 3,
        wait_timeout: seconds(5),
        ..Pool::default()
    }
}

/// Everything as it should be: a primary, a replica and a job server, with a pool on each.
fn well() -> Facts {
    Facts {
        window: seconds(60),
        clients: Clients { connected: 5, max: 100, ..Clients::default() },
        servers: ["main", "replica", "jobs"].map(server).into(),
        pools: vec![pool("primary", "main"), pool("replicas", "replica"), pool("jobs", "jobs")],
        ..Facts::default()
    }
}

fn holder(pid: i32, application_name: &str, phase: Phase) -> Holder {
    Holder {
        pid,
        client: Some(1000 + pid),
        who: who(application_name),
        phase,
        lasts: seconds(12),
        class: "write",
        pin: None,
        stalled: None,
        text: Some("SELECT pg_sleep(?)".to_owned()),
    }
}

/// A full pool that somebody waits for, whose connections are held so.
fn crowd(pool: &mut Pool, holders: Vec<Holder>) {
    (pool.leased, pool.waiting, pool.oldest_wait) = (holders.len(), 3, seconds(2));
    pool.max_connections = holders.len();
    pool.holders = holders;
}

fn four(application_name: &str, phase: Phase) -> Vec<Holder> {
    (1..=4).map(|pid| holder(pid, application_name, phase)).collect()
}

fn blocked_by(pid: i32, blocker: &Blocker) -> Lock {
    Lock { server: "main".to_owned(), pid, waits: seconds(3), blockers: vec![blocker.clone()] }
}

fn outsider() -> Blocker {
    Blocker {
        pid: 99,
        who: Who { application_name: "psql".to_owned(), user: "postgres".to_owned() },
        state: "idle in transaction".to_owned(),
        state_for: Some(seconds(30)),
        text: Some("LOCK TABLE items".to_owned()),
        ..Blocker::default()
    }
}

fn why(facts: &Facts) -> Why {
    let findings = findings(facts);
    Why { well: findings.is_empty(), findings, figures: figures(facts), unknown: unknown(facts), took_ms: 1 }
}

#[test]
fn each_incident_is_named_first() {
    for (what, change, cause, words) in INCIDENTS {
        let mut facts = well();
        change(&mut facts);
        let found = findings(&facts);
        let first = found.first().unwrap_or_else(|| panic!("{what}: nothing is found"));
        assert_eq!(first.cause, *cause, "{what}: {found:#?}");
        for word in *words {
            assert!(first.title.contains(word), "{what}: {word:?} is not in {:?}", first.title);
        }
        assert!(!first.next.is_empty(), "{what}");
    }
}

#[test]
fn every_cause_is_among_the_incidents() {
    let mut seen: Vec<Cause> = INCIDENTS.iter().map(|(_, _, cause, _)| *cause).collect();
    seen.sort_unstable();
    seen.dedup();
    let labels: Vec<&str> = seen.iter().map(|cause| cause.label()).collect();
    assert_eq!(labels.len(), Cause::NotReading as usize + 1, "{labels:?}");
    for cause in seen {
        let json = serde_json::to_string(&cause).expect("a word");
        assert_eq!(json, format!("\"{}\"", cause.label()));
    }
}

#[test]
fn what_is_everyday_is_well() {
    let changes: &[(&str, Change)] = &[
        ("nothing", |_| {}),
        ("a full pool that nobody waits for", |facts| {
            crowd(&mut facts.pools[0], four("web", Phase::Runs));
            facts.pools[0].waiting = 0;
        }),
        ("a short wait", |facts| {
            crowd(&mut facts.pools[0], four("web", Phase::Runs));
            facts.pools[0].oldest_wait = Duration::from_millis(100);
        }),
        ("a short lock", |facts| {
            facts.locks = vec![Lock { waits: Duration::from_millis(100), ..blocked_by(1, &outsider()) }];
        }),
        ("a transaction that is young", |facts| facts.pools[0].holders = four("web", Phase::InTransaction)),
        ("pinned sessions that nobody minds", |facts| facts.pools[0].holders = four("web", Phase::Keeps)),
        ("reads after writes", |facts| {
            facts.reads = Reads { fresh_write: 5, on_replicas: 100, ..Reads::default() };
            facts.servers[1].lag = Duration::from_millis(300);
        }),
        ("servers that were not asked yet", |facts| {
            facts.servers.iter_mut().for_each(|it| it.reach = Reach::Unchecked);
        }),
        ("jobs that are moved", |facts| {
            facts.outbox = Some(Outbox {
                is_ready: true,
                waiting: 3,
                lag: Duration::from_millis(40),
                ..Outbox::default()
            });
        }),
        ("a failover long ago", |facts| {
            (facts.servers[0].host_changes, facts.servers[0].host_for) = (1, Some(seconds(600)));
        }),
    ];
    for (what, change) in changes {
        let mut facts = well();
        change(&mut facts);
        assert_eq!(findings(&facts), Vec::<Finding>::new(), "{what}");
    }
}

#[test]
fn harm_comes_before_risk_and_few_of_a_kind_are_told() {
    let mut facts = well();
    facts.servers[1].why_no_reads = Some("disabled on the console".to_owned());
    facts.pools = (0..6).map(|at| pool(&format!("p{at}"), "main")).collect();
    for (at, pool) in facts.pools.iter_mut().enumerate() {
        crowd(pool, four("web", Phase::Runs));
        pool.waiting = at + 1;
    }
    let found = findings(&facts);
    let told: Vec<_> = found.iter().map(|finding| (finding.cause, finding.severity)).collect();
    let full = (Cause::PoolFull, Severity::Harm);
    assert_eq!(told, [full, full, full, (Cause::ReplicaOut, Severity::Risk)]);
    assert!(found[0].title.contains("\"p5\""), "most wait there: {found:#?}");
}

#[test]
fn evidence_names_who_what_and_why() {
    let mut facts = well();
    crowd(&mut facts.pools[0], four("listener", Phase::Keeps));
    for holder in &mut facts.pools[0].holders {
        holder.pin = Some("advisory_locks");
    }
    facts.pools[0].holders[0] = holder(9, "web", Phase::Runs);
    facts.pools[0].refused = Refusals { full: 2, timeout: 3, ..Refusals::default() };
    let found = findings(&facts);
    let evidence = found[0].evidence.join("\n");
    for words in [
        "3 clients wait, the first for 2.0 s (max_waiting 100, wait_timeout 5.0 s)",
        "2 requests refused in the last 60 s: as many waited as may (pools.primary.max_waiting = 100)",
        "3 requests refused in the last 60 s: they had waited",
        "3 x application \"listener\", user \"app\", kept by advisory_locks, idle for 12 s: last ran SELECT pg_sleep(?)",
        "1 x application \"web\", user \"app\", class write, running for 12 s: SELECT pg_sleep(?)",
        "the longest are clients 1002, 1003, 1004",
    ] {
        assert!(evidence.contains(words), "{words}\n{evidence}");
    }
}

/// Names that are made to do harm.
fn hostile(facts: &mut Facts) {
    let bad = format!("\u{1b}[2J\u{7}\r\nroot\u{202e}{}", "x".repeat(10_000));
    for pool in &mut facts.pools {
        crowd(pool, four(&bad, Phase::InTransaction));
        pool.holders.iter_mut().for_each(|holder| holder.text = Some(bad.clone()));
    }
    let blocker = Blocker { who: who(&bad), text: Some(bad.clone()), address: bad.clone(), ..outsider() };
    facts.locks = vec![blocked_by(1, &blocker)];
    facts.clients = Clients { connected: 100, max: 100, no_place: 1, by_name: vec![(who(&bad), 1, 1)] };
    for server in &mut facts.servers {
        (server.reach, server.error, server.not_asked) = (Reach::Slow, bad.clone(), Some(bad.clone()));
    }
}

#[test]
fn nothing_from_outside_is_shown_as_it_came() {
    let mut facts = well();
    hostile(&mut facts);
    let why = why(&facts);
    let json = serde_json::to_string(&why).expect("it can be said");
    let all = why.findings.iter().flat_map(|finding| {
        finding.evidence.iter().chain([&finding.title, &finding.next]).cloned().collect::<Vec<_>>()
    });
    for text in all.chain(why.figures.clone()).chain(why.unknown.clone()) {
        assert!(!text.contains(|c: char| c.is_control() || c == '\u{202e}'), "{text:?}");
        assert!(text.chars().count() < 700, "{text}");
    }
    assert!(json.len() < 50_000, "{}", json.len());
    assert!(json.contains("\\\\u{1b}[2J"), "{json}");
}

#[test]
fn the_page_fits_the_screen() {
    for (what, change, ..) in
        INCIDENTS.iter().copied().chain([("hostile", hostile as Change, Cause::Lock, &[][..])])
    {
        let mut facts = well();
        change(&mut facts);
        let page = page(&why(&facts), Look::Plain);
        for line in page.lines() {
            assert!(line.chars().count() <= 80, "{what}: {line}");
            assert!(!line.contains(char::is_control), "{what}: {line:?}");
        }
        assert!(page.starts_with("1. "), "{page}");
    }
    let well = page(&why(&well()), Look::Plain);
    assert!(well.starts_with("well: "), "{well}");
    let mut full = self::well();
    crowd(&mut full.pools[0], four("web", Phase::Runs));
    assert!(page(&why(&full), Look::Colours).starts_with("\u{1b}[1;31m1. "));
}

#[test]
fn a_report_of_somebody_else_does_no_harm_either() {
    let finding = Finding {
        cause: Cause::Lock,
        severity: Severity::Harm,
        title: "\u{1b}]0;title\u{7}".to_owned(),
        evidence: vec!["\u{1b}[2J".to_owned()],
        next: "\r\n".to_owned(),
    };
    let why = Why {
        well: false,
        findings: vec![finding],
        figures: vec!["\u{9b}".to_owned()],
        unknown: vec![],
        took_ms: 0,
    };
    assert!(!page(&why, Look::Plain).replace('\n', "").contains(char::is_control));
}
