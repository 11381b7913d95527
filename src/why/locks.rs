//! Findings about locks: who blocks whom, from the end of each chain.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{
    Cause, Severity,
    facts::{Blocker, Facts, Lock, Who},
    found::Found,
    words,
};

/// A chain of those who wait for each other is followed so far.
const CHAIN_MAX: usize = 100;

/// Shorter waits are everyday.
const WAIT_LEAST: std::time::Duration = std::time::Duration::from_millis(500);

/// One that waits for nobody, and those who wait for it.
struct Root<'f> {
    blocker: &'f Blocker,
    victims: Vec<&'f Lock>,
}

pub(super) fn found(facts: &Facts) -> Vec<Found> {
    roots(&facts.locks).into_values().filter_map(|root| tell(facts, &root)).collect()
}

/// Processes that block and are not blocked, by server and number.
fn roots(locks: &[Lock]) -> BTreeMap<(&str, i32), Root<'_>> {
    let waits: HashMap<(&str, i32), &Lock> =
        locks.iter().map(|lock| ((lock.server.as_str(), lock.pid), lock)).collect();
    let mut roots: BTreeMap<(&str, i32), Root<'_>> = BTreeMap::new();
    for victim in locks {
        let mut seen = HashSet::new();
        let mut next: Vec<&Blocker> = victim.blockers.iter().collect();
        while let Some(blocker) = next.pop() {
            if !seen.insert(blocker.pid) || seen.len() > CHAIN_MAX {
                continue;
            }
            let key = (victim.server.as_str(), blocker.pid);
            match waits.get(&key) {
                Some(other) => next.extend(&other.blockers),
                None => {
                    roots.entry(key).or_insert(Root { blocker, victims: Vec::new() }).victims.push(victim);
                }
            }
        }
    }
    roots
}

fn tell(facts: &Facts, root: &Root<'_>) -> Option<Found> {
    let Root { blocker, victims } = root;
    let longest = victims.iter().map(|victim| victim.waits).max().filter(|waits| *waits >= WAIT_LEAST)?;
    let server = victims.first()?.server.as_str();
    let ours = ours(facts, victims);
    let state = state(blocker);
    let title = format!(
        "{} blocks {} on server {}: {state}",
        named(blocker),
        words::count(victims.len(), "other"),
        words::name(server)
    );
    let mut evidence = vec![format!(
        "{} for locks that it has, the longest for {}; {} of them through Bulkhead",
        words::wait(victims.len(), "process"),
        words::time(longest),
        ours.len()
    )];
    evidence.extend(blocker.text.as_ref().map(|text| {
        let what = if blocker.state == "active" { "it runs" } else { "it ran last" };
        format!("{what}: {}", words::statement(text))
    }));
    evidence.extend(victims_lines(&ours));
    let mut found = Found::new(Cause::Lock, severity(&ours), title)
        .weighing(victims.len())
        .evidence(evidence)
        .next(next(blocker, server));
    if !explains(facts, victims) {
        // Another cause keeps more of them.
        found.place = Some(Cause::PinsFull);
    }
    Some(found)
}

/// A lock that nobody who comes through Bulkhead waits for does not slow its users.
fn severity(ours: &[(i32, Who, Option<String>)]) -> Severity {
    if ours.is_empty() { Severity::Risk } else { Severity::Harm }
}

/// Whether the lock explains why a pool is full, or none is.
fn explains(facts: &Facts, victims: &[&Lock]) -> bool {
    let is_victim =
        |server: &str, pid: i32| victims.iter().any(|lock| lock.pid == pid && lock.server == server);
    let mut crowded = facts.pools.iter().filter(|pool| pool.waiting > 0 && pool.leased > 0).peekable();
    crowded.peek().is_none()
        || crowded.any(|pool| {
            let blocked = pool.holders.iter().filter(|holder| is_victim(&pool.server, holder.pid)).count();
            2 * blocked >= pool.leased
        })
}

/// The clients of Bulkhead's among those who wait: process, names, and what they run.
fn ours(facts: &Facts, victims: &[&Lock]) -> Vec<(i32, Who, Option<String>)> {
    let mut ours = Vec::new();
    for pool in &facts.pools {
        for holder in &pool.holders {
            if victims.iter().any(|lock| lock.pid == holder.pid && lock.server == pool.server) {
                ours.push((holder.pid, holder.who.clone(), holder.text.clone()));
            }
        }
    }
    ours
}

/// Lines on those who wait, the most first.
fn victims_lines(ours: &[(i32, Who, Option<String>)]) -> Vec<String> {
    let mut groups: Vec<(&Who, &Option<String>, usize)> = Vec::new();
    for (_, who, text) in ours {
        match groups.iter_mut().find(|(other, said, _)| *other == who && *said == text) {
            Some((.., count)) => *count += 1,
            None => groups.push((who, text, 1)),
        }
    }
    groups.sort_by_key(|(.., count)| usize::MAX - *count);
    let line = |(who, text, count): (&Who, &Option<String>, usize)| {
        let text = text.as_ref().map_or_else(String::new, |text| format!(": {}", words::statement(text)));
        format!("waits: {count} x {}{text}", words::who(who))
    };
    groups.into_iter().take(3).map(line).collect()
}

/// The blocker, and where it comes from.
fn named(blocker: &Blocker) -> String {
    let who = words::who(&blocker.who);
    match (blocker.pid, blocker.client) {
        (0, _) => "a prepared transaction".to_owned(),
        (pid, Some(client)) => format!("client {client} ({who}, server process {pid})"),
        (pid, None) if blocker.address.is_empty() => {
            format!("process {pid} ({who}), which is not Bulkhead's client,")
        }
        (pid, None) => {
            format!(
                "process {pid} ({who}, from {}), which is not Bulkhead's client,",
                words::shown(&blocker.address, 50)
            )
        }
    }
}

fn state(blocker: &Blocker) -> String {
    let since = |what: &str| {
        let times =
            blocker.state_for.map_or_else(String::new, |since| format!(" for {}", words::time(since)));
        format!("{what}{times}")
    };
    match blocker.state.as_str() {
        _ if blocker.pid == 0 => "it has been neither committed nor rolled back".to_owned(),
        "active" => since("it has been running"),
        "idle in transaction" => since("it has been idle in a transaction"),
        "idle in transaction (aborted)" => since("it has been idle in a failed transaction"),
        "idle" => since("it is idle and keeps a session's lock, as it has been"),
        _ => "the server does not tell what it does".to_owned(),
    }
}

fn next(blocker: &Blocker, server: &str) -> String {
    let end = match (blocker.pid, blocker.client) {
        (0, _) => {
            return format!(
                "look at pg_prepared_xacts on server {}, and COMMIT PREPARED or ROLLBACK PREPARED it",
                words::name(server)
            );
        }
        (_, Some(client)) => format!("KILL_CLIENT {client} on the console ends it"),
        (pid, None) => {
            format!("SELECT pg_terminate_backend({pid}) on server {} ends it", words::name(server))
        }
    };
    if blocker.state.starts_with("idle in") {
        format!(
            "have it commit or roll back; {end}; idle_in_transaction_session_timeout bounds such transactions"
        )
    } else {
        format!("wait for it, or cancel it; {end}")
    }
}
