//! The facts of this instance: what sessions, pools, the monitor of servers and the relay have written down, and what the
//! servers tell.

use std::{
    collections::HashMap,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use tokio::time::timeout;

use super::{
    Why,
    activity::{self, Process, Silence},
    facts::{Blocker, Clients, Facts, Holder, Lock, Outbox, Pool, Reach, Reads, Refusals, Server, Who},
    findings::{figures, findings, unknown},
};
use crate::{
    backend::search::together,
    pool::ServerPool,
    shared::{
        Snapshot,
        cancels::{Activity, Seen},
        card::Purpose,
        connections::Connections,
        counters::ReadOn,
        recent::Tally,
    },
    topology::{Known, Role, ServerHealth},
};

/// The turn to ask the servers is waited for no longer than this.
const TURN_TIMEOUT: Duration = Duration::from_secs(2);

/// The servers' answers, by their names.
type Answers = HashMap<String, Result<Vec<Process>, Silence>>;

/// Looks at everything, and says why users are slow. Takes less than five seconds, and a few milliseconds as a rule.
///
/// Cancel safe: it changes nothing.
pub async fn report(shared: &Snapshot) -> Why {
    let began = Instant::now();
    let heard: HashMap<String, u64> =
        shared.health.servers.iter().map(|server| (server.name.clone(), received(server))).collect();
    let answers = ask_servers(shared).await;
    let facts = facts(shared, answers, &heard);
    let findings = findings(&facts);
    Why {
        well: findings.is_empty(),
        findings,
        figures: figures(&facts),
        unknown: unknown(&facts),
        took_ms: began.elapsed().as_millis() as u64,
    }
}

fn received(server: &ServerHealth) -> u64 {
    server.traffic().received.load(Ordering::Relaxed)
}

/// Asks each server that is not known to be down or full.
async fn ask_servers(shared: &Snapshot) -> Option<Answers> {
    let _turn = timeout(TURN_TIMEOUT, shared.inquiries.acquire()).await.ok()?.ok()?;
    let identity = shared.url_identity()?;
    let asked = shared
        .health
        .servers
        .iter()
        .filter(|server| !matches!(server.known(), Known::Down { .. }) && server.full().is_none());
    let questions = asked.filter_map(|server| {
        let member = member_of(shared, server)?;
        let identity = &identity;
        Some(Box::pin(async move { (server.name.clone(), activity::ask(member, identity).await) }))
    });
    Some(together(questions.collect()).await.into_iter().collect())
}

/// A pool on a server.
fn member_of<'s>(shared: &'s Snapshot, server: &ServerHealth) -> Option<&'s ServerPool> {
    members(shared).find(|(_, member)| member.server_name == server.name).map(|(_, member)| member)
}

/// The pools on each of their servers, with their positions.
fn members(shared: &Snapshot) -> impl Iterator<Item = (usize, &ServerPool)> {
    let each = shared.pools.iter().enumerate();
    each.flat_map(|(at, pool)| pool.members.iter().map(move |member| (at, &**member)))
}

fn facts(shared: &Snapshot, answers: Option<Answers>, heard: &HashMap<String, u64>) -> Facts {
    let connections = Connections::of(shared);
    let (tally, window) = shared.recent.until(Instant::now(), shared.tally());
    let mut facts = Facts {
        is_draining: shared.is_draining(),
        window,
        clients: clients(shared, &connections, &tally),
        reads: reads(&tally),
        outbox: outbox(shared),
        ..Facts::default()
    };
    let is_told = answers.is_some();
    let mut answers = answers.unwrap_or_default();
    let mut told: HashMap<&str, Vec<Process>> = HashMap::new();
    for server in &shared.health.servers {
        let mut fact = server_fact(shared, server);
        match answers.remove(&server.name) {
            Some(Ok(processes)) => {
                fact.hidden = processes.iter().filter(|process| process.state.is_empty()).count();
                told.insert(&server.name, processes);
            }
            Some(Err(silence)) => note_silence(&mut fact, silence, received(server) > heard[&server.name]),
            None if !is_told => fact.not_asked = Some("others are asking already: ask again".to_owned()),
            None => fact.not_asked = Some("it was not asked, since it does not serve".to_owned()),
        }
        facts.servers.push(fact);
    }
    facts.pools = pools(shared, &connections, &tally, &told);
    facts.locks =
        told.iter().flat_map(|(server, processes)| locks(server, processes, &facts.pools)).collect();
    facts
}

/// A server has not answered the question.
fn note_silence(fact: &mut Server, silence: Silence, was_heard: bool) {
    let is_up = matches!(fact.reach, Reach::Up | Reach::Unchecked);
    match silence {
        Silence::NoPlace => {
            let name = &fact.name;
            fact.not_asked = Some(format!(
                "servers.{name}.max_connections leaves no place for the question beside the pools and the health check"
            ));
            return;
        }
        Silence::Unreachable(error) => {
            fact.not_asked = Some(error.to_string());
            if is_up {
                fact.reach = if error.is_full() { Reach::Full } else { Reach::Down };
                fact.error = error.to_string();
            }
        }
        Silence::Failed(error) => fact.not_asked = Some(error),
        Silence::TimedOut => {
            let error = "a new connection and one question on it were not answered within 2 s";
            fact.not_asked = Some(error.to_owned());
            if is_up {
                fact.reach = if was_heard { Reach::Slow } else { Reach::Down };
                error.clone_into(&mut fact.error);
            }
        }
    }
    if is_up {
        // How long is not known yet.
        fact.reach_for = None;
    }
}

fn server_fact(shared: &Snapshot, server: &ServerHealth) -> Server {
    let (mut reach, mut error) = match (server.known(), server.role) {
        (Known::Unchecked, _) => (Reach::Unchecked, String::new()),
        (Known::Down { error }, _) => (Reach::Down, error),
        (Known::Up { in_recovery: true }, Role::Primary)
        | (Known::Up { in_recovery: false }, Role::Replica) => (Reach::WrongRole, String::new()),
        (Known::Up { .. }, _) => (Reach::Up, String::new()),
    };
    let mut reach_for = server.known_for();
    let member = member_of(shared, server);
    if let Some((words, _)) = server.full().filter(|_| reach != Reach::Down) {
        (reach, error) = (Reach::Full, words);
        reach_for = member.and_then(|member| member.gate().full_for()).map(|(since, _)| since);
    }
    let of_server = || {
        members(shared)
            .filter(|(_, member)| member.server_name == server.name)
            .map(|(_, member)| member.figures())
    };
    let (lag_bytes, lag) = server.reads().lag();
    Server {
        name: server.name.clone(),
        is_primary: server.role == Role::Primary,
        is_replica: server.role == Role::Replica,
        reach,
        reach_for,
        error,
        hosts: member.map_or(1, |member| member.server().hosts.len()),
        host: server.host().unwrap_or_default(),
        host_for: server.host_for(),
        host_changes: server.host_changes(),
        rivals: server.rivals(),
        open: of_server().map(|figures| figures.leased + figures.idle).sum(),
        open_max: of_server().map(|figures| figures.max_connections).sum(),
        why_no_reads: (server.role == Role::Replica)
            .then(|| shared.why_no_reads(server))
            .flatten()
            .map(ToOwned::to_owned),
        lag,
        lag_bytes,
        not_asked: None,
        hidden: 0,
    }
}

fn who(client: &Seen) -> Who {
    let settings = client.settings.as_ref();
    let application_name = settings.and_then(|settings| settings.get("application_name")).unwrap_or_default();
    Who { application_name: application_name.to_owned(), user: client.card().identity.user.clone() }
}

fn clients(shared: &Snapshot, connections: &Connections, tally: &Tally) -> Clients {
    let mut by_name: HashMap<Who, (usize, usize)> = HashMap::new();
    for client in connections.clients.iter().filter(|client| client.card().purpose != Purpose::Console) {
        let (count, idle) = by_name.entry(who(client)).or_default();
        *count += 1;
        *idle += usize::from(matches!(client.activity, Activity::Idle));
    }
    let mut by_name: Vec<_> = by_name.into_iter().map(|(who, (count, idle))| (who, count, idle)).collect();
    by_name.sort_by(|(one, count, _), (other, others, _)| others.cmp(count).then_with(|| one.cmp(other)));
    Clients {
        connected: shared.clients() as usize,
        max: shared.limits.max_clients,
        no_place: tally.no_place,
        by_name,
    }
}

fn reads(tally: &Tally) -> Reads {
    let mut reads = Reads::default();
    for (on, count) in ReadOn::ALL.into_iter().zip(tally.reads) {
        match on {
            ReadOn::Replica | ReadOn::ReplicaLater | ReadOn::ReplicaOpen => reads.on_replicas += count,
            ReadOn::FreshWrite => reads.fresh_write += count,
            ReadOn::Floor => reads.floor += count,
            ReadOn::Behind => reads.behind += count,
            ReadOn::NoReplica => reads.no_replica += count,
            ReadOn::PrimaryOpen => {}
        }
    }
    reads
}

fn outbox(shared: &Snapshot) -> Option<Outbox> {
    let (outbox, _) = shared.outbox.as_ref().zip(shared.relay.as_ref())?;
    let figures = outbox.figures();
    let server = shared.routes.jobs.map(|jobs| shared.pool(jobs).members[0].server_name.clone());
    Some(Outbox {
        is_ready: figures.is_ready,
        waiting: figures.waiting,
        lag: Duration::from_millis(figures.lag_millis),
        trouble: outbox.trouble().map(|trouble| trouble.to_string()),
        server: server.unwrap_or_default(),
    })
}

fn pools(
    shared: &Snapshot,
    connections: &Connections,
    tally: &Tally,
    told: &HashMap<&str, Vec<Process>>,
) -> Vec<Pool> {
    let mut holders = holders(connections, told);
    let pools = members(shared).map(|(at, member)| {
        let (figures, limits) = (member.figures(), member.limits());
        let key = (member.name.clone(), member.server_name.clone());
        let refused = tally.pools.get(&key).copied().unwrap_or_default();
        let oldest_wait = member.shares().iter().map(|share| share.longest_wait).max();
        let by_reason = member.pins().by_reason.iter().map(|count| count.load(Ordering::Relaxed));
        Pool {
            holders: holders.remove(&(at, member.server_name.clone())).unwrap_or_default(),
            name: key.0,
            server: key.1,
            leased: figures.leased,
            idle: figures.idle,
            connecting: figures.connecting,
            closing: figures.closing,
            max_connections: figures.max_connections,
            waiting: figures.waiting,
            oldest_wait: oldest_wait.unwrap_or_default(),
            max_waiting: limits.max_waiting,
            wait_timeout: limits.wait_timeout,
            pinned: by_reason.sum(),
            max_pinned: limits.max_pinned,
            pins_wanted: member.wants_pins(),
            is_paused: member.is_paused(),
            is_disabled: member.is_disabled(),
            refused: Refusals {
                full: refused.full,
                timeout: refused.timeout,
                unreachable: refused.unreachable,
                pins: refused.pins,
            },
        }
    });
    pools.collect()
}

/// The connections in use, by the position of their pool and the name of its server.
fn holders(
    connections: &Connections,
    told: &HashMap<&str, Vec<Process>>,
) -> HashMap<(usize, String), Vec<Holder>> {
    let by_backend = connections.holders();
    let mut holders: HashMap<(usize, String), Vec<Holder>> = HashMap::new();
    for (at, (pool, backend)) in connections.backends.iter().enumerate() {
        if backend.idle.is_some() {
            continue;
        }
        let server = &backend.target.server.name;
        let pid = backend.target.process_id;
        let processes = told.get(server.as_str()).into_iter().flatten();
        let process = processes.into_iter().find(|process| process.pid == pid);
        let client = by_backend.get(&at);
        let own = || Who { application_name: String::new(), user: backend.identity.user.clone() };
        let glance = backend.target.doing.glance();
        holders.entry((usize::from(pool.0), server.clone())).or_default().push(Holder {
            pid,
            client: client.map(|client| client.id),
            who: client.map_or_else(own, |client| who(client)),
            phase: glance.phase,
            lasts: glance.lasts,
            class: glance.class.label(),
            pin: glance.pin.map(crate::backend::probe::PinReason::label),
            stalled: glance.stalled,
            text: process
                .filter(|process| !process.state.is_empty())
                .and_then(|process| process.text.clone()),
        });
    }
    holders
}

/// Processes of a server that wait for locks, and for whom.
fn locks(server: &str, processes: &[Process], pools: &[Pool]) -> Vec<Lock> {
    let client_of = |pid: i32| {
        let holders = pools.iter().filter(|pool| pool.server == server).flat_map(|pool| &pool.holders);
        holders.into_iter().find(|holder| holder.pid == pid)
    };
    let blocker = |pid: i32| {
        let process = processes.iter().find(|process| process.pid == pid).cloned().unwrap_or_default();
        let ours = client_of(pid);
        let own = || Who { application_name: process.application_name.clone(), user: process.user.clone() };
        Blocker {
            pid,
            client: ours.and_then(|holder| holder.client),
            who: ours.filter(|holder| holder.client.is_some()).map_or_else(own, |holder| holder.who.clone()),
            address: process.address.clone(),
            // An idle one may have answered a question of ours last.
            text: process.text.clone().filter(|_| !matches!(process.state.as_str(), "" | "idle")),
            state: process.state,
            state_for: process.state_for,
        }
    };
    let waiting = processes.iter().filter(|process| !process.blockers.is_empty());
    waiting
        .map(|process| Lock {
            server: server.to_owned(),
            pid: process.pid,
            waits: process.query_for.unwrap_or_default(),
            blockers: process.blockers.iter().map(|pid| blocker(*pid)).collect(),
        })
        .collect()
}
