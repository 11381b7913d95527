//! The pools, and how they fit the servers.
//!
//! Owns which server a pool may sit on, the pools that exist without being written, and the servers' budgets.
//! Refuses to look at anything else of the configuration.

use std::time::Duration;

use super::{
    Jobs, PRIMARY, Pool, PoolMode, Reads, Workers,
    file::Section,
    keys::nearest,
    problem::{Wrong, shown},
    servers::{CONNECTIONS_MAX, MILLISECOND, Named},
};
use crate::sql::Consistency;

/// A read remembers by a bit for each which replicas are fresh enough.
const REPLICAS_MAX: usize = 32;

/// The pools of the file, and those that exist without being written.
pub(super) fn pools(root: &Section<'_>, servers: &[Named<'_>], jobs: &Jobs, workers: &Workers) -> Vec<Pool> {
    let mut pools: Vec<Pool> =
        root.named("pools").iter().map(|(name, section)| pool(name, section, servers)).collect();
    // Nothing is a job where no preset is to be looked for, either.
    let has_jobs = Jobs { auto: true, ..jobs.clone() } != Jobs::default();
    let wanted = [(PRIMARY, true), ("jobs", has_jobs), ("workers", *workers != Workers::default())];
    for (name, wanted) in wanted {
        // A server of that name without its pool is more likely forgotten than meant: see `unused_servers`.
        let forgotten = name != PRIMARY && servers.iter().any(|server| server.name == name);
        if wanted && !forgotten && !pools.iter().any(|pool| pool.name == name) {
            let servers = position(servers, PRIMARY).into_iter().collect();
            pools.push(Pool { name: name.to_owned(), servers, ..Pool::default() });
        }
    }
    unused_servers(servers, &pools);
    budgets(servers, &pools);
    pools
}

fn pool(name: &str, section: &Section<'_>, servers: &[Named<'_>]) -> Pool {
    let default = Pool::default();
    let duration = |key, default| section.duration(key, default, Duration::ZERO);
    let timeout = |key, default| section.duration(key, default, MILLISECOND);
    let max_connections = section.count("max_connections", default.max_connections, &(1..=CONNECTIONS_MAX));
    let mode = section.parsed("mode", default.mode, mode);
    // Where every session keeps its connection, there is nothing to keep free for others.
    let max_pinned = match mode {
        PoolMode::Session => max_connections,
        PoolMode::Transaction => pinned_share(max_connections),
    };
    let pool = Pool {
        name: name.to_owned(),
        servers: pool_servers(name, section, servers),
        max_connections,
        min_connections: section.count("min_connections", default.min_connections, &(0..=CONNECTIONS_MAX)),
        max_waiting: section.count("max_waiting", default.max_waiting, &(0..=1_000_000)),
        wait_timeout: timeout("wait_timeout", default.wait_timeout),
        idle_timeout: duration("idle_timeout", default.idle_timeout),
        max_lifetime: duration("max_lifetime", default.max_lifetime),
        connect_timeout: timeout("connect_timeout", default.connect_timeout),
        check_after: duration("check_after", default.check_after),
        close_timeout: timeout("close_timeout", default.close_timeout),
        mode,
        max_pinned: section.count("max_pinned", max_pinned, &(0..=CONNECTIONS_MAX)),
        pinned_idle_timeout: duration("pinned_idle_timeout", default.pinned_idle_timeout),
        reads: reads(name, section),
    };
    if mode == PoolMode::Session && section.has("max_pinned") {
        let wrong =
            Wrong::new("has no meaning with mode = \"session\"", "leave it out, or set max_connections");
        section.problem("max_pinned", wrong);
    }
    if pool.servers.len() > REPLICAS_MAX {
        let message = format!("are {}, and a pool has at most {REPLICAS_MAX}", pool.servers.len());
        section.problem("servers", Wrong::new(message, "write fewer"));
    }
    if pool.max_pinned > pool.max_connections {
        let message = format!("{} is more than max_connections, which is {max_connections}", pool.max_pinned);
        section.problem("max_pinned", Wrong::new(message, format!("write at most {max_connections}")));
    }
    if pool.min_connections > pool.max_connections {
        let message = format!(
            "{} is more than max_connections, which is {}",
            pool.min_connections, pool.max_connections
        );
        section.problem(
            "min_connections",
            Wrong::new(message, format!("write at most {}", pool.max_connections)),
        );
    }
    pool
}

/// What reads on replicas need.
fn reads(name: &str, section: &Section<'_>) -> Reads {
    let default = Reads::default();
    if name != "replicas" {
        for key in ["consistency", "causal_wait", "sample_interval", "max_lag", "max_lag_bytes"] {
            if section.has(key) {
                let wrong =
                    Wrong::new("has a meaning for the pool replicas only", "write it below [pools.replicas]");
                section.problem(key, wrong);
            }
        }
        return default;
    }
    let duration = |key, default, least| section.duration(key, default, least);
    Reads {
        consistency: section.parsed("consistency", default.consistency, consistency),
        causal_wait: duration("causal_wait", default.causal_wait, Duration::ZERO),
        sample_interval: duration("sample_interval", default.sample_interval, MILLISECOND),
        max_lag: duration("max_lag", default.max_lag, Duration::ZERO),
        max_lag_bytes: section.size("max_lag_bytes", default.max_lag_bytes, &(0..=1 << 50)),
    }
}

fn consistency(text: &str) -> Result<Consistency, Wrong> {
    Consistency::named(text).ok_or_else(|| {
        let names = Consistency::ALL.map(|one| format!("\"{}\"", one.name())).join(", ");
        Wrong::new(format!("{} is no consistency", shown(text)), format!("write one of {names}"))
    })
}

/// The share of a pool that pinned sessions may have unless the file says otherwise: a quarter is always left to
/// transactions, if there is more than one connection at all.
pub(super) const fn pinned_share(max_connections: usize) -> usize {
    let share = max_connections - max_connections.div_ceil(4);
    if share == 0 { 1 } else { share }
}

fn mode(text: &str) -> Result<PoolMode, Wrong> {
    match text {
        "transaction" => Ok(PoolMode::Transaction),
        "session" => Ok(PoolMode::Session),
        _ => {
            Err(Wrong::new(format!("{} is not a mode", shown(text)), "write \"transaction\" or \"session\""))
        }
    }
}

fn position(servers: &[Named<'_>], name: &str) -> Option<usize> {
    servers.iter().position(|server| server.name == name)
}

/// The servers that a pool names, or those it has by its own name.
fn pool_servers(name: &str, section: &Section<'_>, servers: &[Named<'_>]) -> Vec<usize> {
    if !section.has("servers") {
        return default_servers(name, section, servers);
    }
    let texts = section.texts("servers");
    let mut positions = Vec::new();
    for text in &texts {
        match position(servers, &text.value) {
            Some(position) if positions.contains(&position) => {
                let wrong =
                    Wrong::new(format!("{} is named twice", shown(&text.value)), "name each server once");
                section.problem_at(&text.at, "servers", wrong);
            }
            Some(position) => positions.push(position),
            None => section.problem_at(&text.at, "servers", no_server(&text.value, servers)),
        }
    }
    if !section.is_list("servers") || positions.len() < texts.len() {
        // Reported above; what the list means is not known before that is mended.
        return positions;
    }
    let only_primary = matches!(name, PRIMARY | "workers");
    if only_primary && texts.iter().any(|text| text.value != PRIMARY)
        || texts.len() != 1 && name != "replicas"
    {
        let (message, hint) = match name {
            _ if only_primary => {
                (format!("the pool {name} is always on the primary"), "servers = [\"primary\"]")
            }
            _ if texts.is_empty() => ("names no server".to_owned(), "servers = [\"primary\"]"),
            _ => ("only the pool replicas may have several servers".to_owned(), "one server"),
        };
        section.problem("servers", Wrong::new(message, format!("write {hint}")));
    } else if texts.is_empty() {
        section.problem("servers", Wrong::new("names no server", "write servers = [\"replica_1\"]"));
    }
    positions
}

fn default_servers(name: &str, section: &Section<'_>, servers: &[Named<'_>]) -> Vec<usize> {
    let replicas = || (0..servers.len()).filter(|&i| servers[i].name.starts_with("replica")).collect();
    let found: Vec<usize> = match name {
        PRIMARY | "workers" => position(servers, PRIMARY).into_iter().collect(),
        "jobs" => position(servers, "jobs").or_else(|| position(servers, PRIMARY)).into_iter().collect(),
        "replicas" => replicas(),
        _ => Vec::new(),
    };
    // Without a primary there is one problem, and it is reported already.
    if found.is_empty()
        && (position(servers, PRIMARY).is_some() || !matches!(name, PRIMARY | "workers" | "jobs"))
    {
        section.problem(
            "servers",
            Wrong::new("is missing", "write servers = [\"NAME\"] with a name of [servers.NAME]"),
        );
    }
    found
}

fn no_server(name: &str, servers: &[Named<'_>]) -> Wrong {
    let names: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
    let hint = match nearest(name, &names) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("add [servers.{name}], or name one of: {}", names.join(", ")),
    };
    Wrong::new(format!("no server is called {}", shown(name)), hint)
}

fn unused_servers(servers: &[Named<'_>], pools: &[Pool]) {
    for (position, server) in servers.iter().enumerate() {
        if server.name == PRIMARY || pools.iter().any(|pool| pool.servers.contains(&position)) {
            continue;
        }
        let pool = match server.name.as_str() {
            "jobs" => "jobs",
            name if name.starts_with("replica") => "replicas",
            _ => "NAME",
        };
        let hint = format!("add [pools.{pool}] with servers = [\"{}\"], or remove this server", server.name);
        server.section.report(Wrong::new("no pool uses this server", hint));
    }
}

/// A server's bound must hold all of its pools at their largest.
fn budgets(servers: &[Named<'_>], pools: &[Pool]) {
    for (position, server) in servers.iter().enumerate() {
        let Some(bound) = server.max_connections else { continue };
        let here = || pools.iter().filter(|pool| pool.servers.contains(&position));
        let sum: usize = here().map(|pool| pool.max_connections).sum();
        if sum > bound {
            let list: Vec<_> = here().map(|pool| format!("{} {}", pool.name, pool.max_connections)).collect();
            let message = format!("{bound} is less than its pools may open: {} = {sum}", list.join(" + "));
            let hint = format!("write max_connections = {sum}, or lower those of the pools");
            server.section.problem("max_connections", Wrong::new(message, hint));
        }
    }
}
