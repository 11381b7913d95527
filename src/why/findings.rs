//! From facts to findings, in order: what harms somebody now before what does not, and causes before what follows from
//! them.

use super::{
    Cause, Finding, Severity,
    facts::{Facts, Pool, Reach},
    locks, others, pools, servers, words,
};

/// Findings of one kind that are told; the rest is counted in none of them, but shows when these are gone.
const OF_ONE_KIND: usize = 3;

/// A finding and its place among those of the same severity.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) finding: Finding,
    /// Another cause's place, if it is not its own.
    pub(super) place: Option<Cause>,
    /// The greater of two of the same kind comes first.
    pub(super) weight: usize,
}

impl Found {
    pub(super) fn new(cause: Cause, severity: Severity, title: String) -> Self {
        let finding = Finding { cause, severity, title, evidence: Vec::new(), next: String::new() };
        Self { finding, place: None, weight: 0 }
    }

    pub(super) fn weighing(mut self, weight: usize) -> Self {
        self.weight = weight;
        self
    }

    pub(super) fn evidence(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.finding.evidence.extend(lines);
        self
    }

    pub(super) fn next(mut self, next: impl Into<String>) -> Self {
        self.finding.next = next.into();
        self
    }

    fn order(&self) -> (Severity, Cause, usize) {
        let cause = self.finding.cause;
        (self.finding.severity, self.place.unwrap_or(cause), usize::MAX - self.weight)
    }
}

/// All that is found, in order.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(servers::found(facts));
    found.extend(locks::found(facts));
    found.extend(pools::found(facts));
    found.extend(others::found(facts));
    found.sort_by_key(Found::order);
    let mut told: Vec<Finding> = Vec::new();
    for Found { finding, .. } in found {
        if told.iter().filter(|other| other.cause == finding.cause).count() < OF_ONE_KIND {
            told.push(finding);
        }
    }
    told
}

/// How clients, pools and servers are, in a line each.
pub(super) fn figures(facts: &Facts) -> Vec<String> {
    let clients = &facts.clients;
    let mut lines = vec![format!("clients: {} of {}", clients.connected, clients.max)];
    lines.extend(facts.pools.iter().map(pool_line));
    let servers = facts.servers.iter().map(|server| {
        let state = match server.reach {
            Reach::Up => "up",
            Reach::Unchecked => "not asked yet",
            Reach::Down => "down",
            Reach::Full => "takes no more connections",
            Reach::WrongRole => "has another role than it should",
            Reach::Slow => "slow",
        };
        let lag =
            if server.is_replica { format!(", {} behind", words::time(server.lag)) } else { String::new() };
        format!(
            "server {}: {state}, {} open{lag}",
            words::name(&server.name),
            words::count(server.open, "connection")
        )
    });
    lines.extend(servers);
    if let Some(outbox) = &facts.outbox {
        lines.push(format!("outbox: {} on the primary", words::count(outbox.waiting as usize, "job")));
    }
    lines
}

fn pool_line(pool: &Pool) -> String {
    let waiting = if pool.waiting == 0 {
        "nobody waits".to_owned()
    } else {
        format!("{} wait, the first for {}", pool.waiting, words::time(pool.oldest_wait))
    };
    format!("pool {}: {} of {} in use, {waiting}", pool_name(pool), pool.leased, pool.max_connections)
}

/// A pool's name; with its server's, if that is another one.
pub(super) fn pool_name(pool: &Pool) -> String {
    if pool.name == pool.server {
        words::name(&pool.name)
    } else {
        format!("{} on {}", words::name(&pool.name), words::name(&pool.server))
    }
}

/// What could not be looked at.
pub(super) fn unknown(facts: &Facts) -> Vec<String> {
    let mut lines = Vec::new();
    for server in &facts.servers {
        let name = words::name(&server.name);
        if let Some(why) = &server.not_asked {
            lines.push(format!(
                "what the connections of server {name} do, and locks there: {}",
                words::error(why)
            ));
        } else if server.hidden > 0 {
            lines.push(format!(
                "what {} of server {name} do: they are of other roles; GRANT pg_read_all_stats to the role of its url",
                words::count(server.hidden, "connection")
            ));
        }
    }
    lines
}
