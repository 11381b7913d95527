//! From facts to findings, in order: what harms somebody now before what does not, and causes before what follows from
//! them.

use super::{
    Finding,
    facts::{Facts, Pool, Reach},
    found::{Found, pool_name},
    locks, others, pools, servers, words,
};

/// Findings of one kind that are told; the rest is counted in none of them, but shows when these are gone.
const OF_ONE_KIND: usize = 3;

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

/// All that could not be looked at.
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
