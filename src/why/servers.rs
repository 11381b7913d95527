//! Findings about servers: down, full, in the wrong role, moved, two of them.

use std::time::Duration;

use super::{
    Cause, Severity,
    facts::{Facts, Reach, Server},
    found::Found,
    words,
};

/// A server that has moved to another host within this is told of.
const MOVED_WITHIN: Duration = Duration::from_secs(60);

pub(super) fn found(facts: &Facts) -> Vec<Found> {
    let mut found = Vec::new();
    if facts.is_draining {
        let title = "Bulkhead is shutting down: clients are let go, new ones are refused".to_owned();
        found.push(
            Found::new(Cause::ShuttingDown, Severity::Harm, title)
                .next("start it again, or send clients to another instance"),
        );
    }
    for server in &facts.servers {
        let state = match server.reach {
            Reach::Down if !server.is_replica => Some(down(facts, server)),
            Reach::Full => Some(full(facts, server)),
            Reach::WrongRole if server.is_primary => Some(read_only(server)),
            Reach::Slow => Some(slow(facts, server)),
            _ => None,
        };
        found.extend(state);
        found.extend(rivals(server));
        found.extend(moved(server));
    }
    found
}

fn down(facts: &Facts, server: &Server) -> Found {
    let name = words::name(&server.name);
    let (cause, what) = if server.is_primary {
        (Cause::PrimaryDown, "the primary, server")
    } else {
        (Cause::ServerDown, "server")
    };
    let since = server.reach_for.map_or_else(String::new, |since| format!(" for {}", words::time(since)));
    let title = format!("{what} {name}, does not serve{since}: {}", words::error(&server.error));
    let title = if server.is_primary { title } else { title.replacen(", does", " does", 1) };
    let mut found = Found::new(cause, Severity::Harm, title).evidence(suffers(facts, server));
    if server.hosts > 1 {
        found = found.evidence([format!(
            "none of its {} hosts takes connections as it should; it was last at {}",
            server.hosts,
            words::shown(&server.host, 80)
        )]);
    }
    if let Some(outbox) = facts.outbox.as_ref().filter(|outbox| outbox.server == server.name) {
        found = found.evidence([format!(
            "{} on the primary until it is back (outbox), the first for {}; nothing is lost",
            words::wait(outbox.waiting as usize, "job"),
            words::time(outbox.lag)
        )]);
        found = found
            .evidence(outbox.trouble.iter().map(|trouble| format!("the relay: {}", words::error(trouble))));
    }
    let at = if server.host.is_empty() {
        String::new()
    } else {
        format!(" at {}", words::shown(&server.host, 80))
    };
    let next = if server.hosts > 1 {
        "let the failover end, or promote a host; Bulkhead finds the one that takes writes by itself"
            .to_owned()
    } else if refuses(&server.error) {
        format!(
            "the server{at} runs and refuses: look at its log, and at user and password of servers.{}.url",
            server.name
        )
    } else {
        format!("look whether PostgreSQL{at} runs and can be reached from here; its log says why not")
    };
    found.next(next)
}

/// Whether an error is a server's answer.
fn refuses(error: &str) -> bool {
    ["28", "3D", "42", "57"].iter().any(|class| error.contains(&format!("({class}")))
        || error.contains("password")
        || error.contains("authentication")
}

/// Lines on who waits for a server, and who was refused because of it.
fn suffers(facts: &Facts, server: &Server) -> Vec<String> {
    let pools: Vec<_> = facts.pools.iter().filter(|pool| pool.server == server.name).collect();
    let waiting: usize = pools.iter().map(|pool| pool.waiting).sum();
    let oldest = pools.iter().map(|pool| pool.oldest_wait).max().unwrap_or_default();
    let refused: u64 = pools.iter().map(|pool| pool.refused.unreachable + pool.refused.timeout).sum();
    let in_use: usize = pools.iter().map(|pool| pool.leased).sum();
    let mut lines = Vec::new();
    if waiting > 0 {
        lines.push(format!(
            "{} for a connection to it, the first for {}",
            words::wait(waiting, "client"),
            words::time(oldest)
        ));
    }
    if refused > 0 {
        let requests = words::count(refused as usize, "request");
        lines.push(format!("{requests} got an error for it in the last {}", words::time(facts.window)));
    }
    if in_use > 0 {
        lines.push(format!("{} to it in use", words::count(in_use, "connection")));
    }
    lines
}

fn full(facts: &Facts, server: &Server) -> Found {
    let name = words::name(&server.name);
    let since = server.reach_for.map_or_else(String::new, |since| format!(" for {}", words::time(since)));
    let title = format!(
        "server {name} has had no place for more connections{since}: {}",
        words::error(&server.error)
    );
    let taken = format!(
        "Bulkhead has {} there, and its pools may open {}: the others are not Bulkhead's",
        words::count(server.open, "connection"),
        server.open_max
    );
    Found::new(Cause::ServerFull, Severity::Harm, title)
        .evidence(suffers(facts, server))
        .evidence([taken])
        .next(format!(
            "see who has them (SELECT usename, application_name, count(*) FROM pg_stat_activity GROUP BY 1, 2 as a \
             superuser), end what is not needed, or raise max_connections there; keep servers.{}.max_connections below \
             what is left for Bulkhead",
            server.name
        ))
}

fn read_only(server: &Server) -> Found {
    let title =
        format!("the primary, server {}, is in recovery: it takes no writes", words::name(&server.name));
    let next = if server.hosts > 1 {
        "promote it, or let the failover end; Bulkhead goes over to a host that takes writes by itself"
            .to_owned()
    } else {
        format!("promote it, or point servers.{}.url to the host that takes writes", server.name)
    };
    Found::new(Cause::PrimaryReadOnly, Severity::Harm, title)
        .evidence([format!("it is at {}", words::shown(&server.host, 80))])
        .next(next)
}

fn slow(facts: &Facts, server: &Server) -> Found {
    let title = format!("server {} answers late: {}", words::name(&server.name), words::error(&server.error));
    Found::new(Cause::ServerSlow, Severity::Harm, title)
        .evidence(suffers(facts, server))
        .next("look at the CPU, disk and memory of its machine, and at what it runs (pg_stat_activity)")
}

fn rivals(server: &Server) -> Option<Found> {
    let (first, _) = server.rivals.split_first()?;
    let title = format!(
        "two hosts of server {} take writes: {}, which Bulkhead uses, and {}",
        words::name(&server.name),
        words::shown(&server.host, 80),
        words::shown(first, 80)
    );
    let next =
        format!("stop {} at once: what is written there is lost to everybody else", words::shown(first, 80));
    Some(Found::new(Cause::TwoPrimaries, Severity::Risk, title).next(next))
}

fn moved(server: &Server) -> Option<Found> {
    let since = server.host_for.filter(|since| *since < MOVED_WITHIN && server.host_changes > 0)?;
    let title = format!(
        "server {} moved to {} {} ago",
        words::name(&server.name),
        words::shown(&server.host, 80),
        words::time(since)
    );
    let evidence = "connections to the host before were closed, transactions on them have failed".to_owned();
    Some(
        Found::new(Cause::Moved, Severity::Risk, title)
            .evidence([evidence])
            .next("nothing; if nobody meant it, look at the host before"),
    )
}
