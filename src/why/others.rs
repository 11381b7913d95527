//! Findings about clients, replicas and the outbox.

use std::time::Duration;

use super::{
    Cause, Severity,
    facts::{Facts, Holder, Outbox, Reach, Server},
    found::Found,
    words,
};

/// A replica that is further behind shows.
const LAG_LEAST: Duration = Duration::from_secs(1);

/// A job that waits for longer shows.
const JOB_WAIT_LEAST: Duration = Duration::from_secs(5);

/// Clients that do nothing in a transaction, or read nothing, for longer are told of even while there is room.
const LEAK_LEAST: Duration = Duration::from_secs(60);

/// Groups of clients that are told of.
const NAMES: usize = 4;

pub(super) fn found(facts: &Facts) -> Vec<Found> {
    let mut found: Vec<Found> = facts.servers.iter().filter_map(|server| replica(facts, server)).collect();
    found.extend(clients_full(facts));
    found.extend(facts.outbox.as_ref().and_then(|outbox| outbox_behind(facts, outbox)));
    found.extend(leaks(facts));
    found
}

fn clients_full(facts: &Facts) -> Option<Found> {
    let clients = &facts.clients;
    let is_full = clients.connected >= clients.max;
    if clients.no_place == 0 && !is_full {
        return None;
    }
    let title = format!(
        "clients are refused: {} of {} places for clients are taken (limits.max_clients)",
        clients.connected, clients.max
    );
    let title = if clients.no_place == 0 { title.replace("are refused", "will be refused") } else { title };
    // Places are kept for those who hold few: some are refused before all are taken.
    let is_crowded = clients.connected + (clients.max / 10).clamp(1, 50) >= clients.max;
    let severity = if clients.no_place > 0 && is_crowded { Severity::Harm } else { Severity::Risk };
    let refused = (clients.no_place > 0).then(|| {
        format!(
            "{} refused in the last {}",
            words::count(clients.no_place as usize, "client"),
            words::time(facts.window)
        )
    });
    let by_name = clients.by_name.iter().take(NAMES).map(|(who, count, idle)| {
        format!("{} of {}, {idle} of them idle", words::count(*count, "client"), words::who(who))
    });
    Some(
        Found::new(Cause::ClientsFull, severity, title)
            .weighing(clients.no_place as usize)
            .evidence(refused)
            .evidence(by_name)
            .next(
                "have the applications keep fewer connections open (the size of their own pools), or raise \
                 limits.max_clients: an idle client costs little",
            ),
    )
}

fn replica(facts: &Facts, server: &Server) -> Option<Found> {
    if !server.is_replica || server.reach == Reach::Unchecked {
        return None;
    }
    let name = words::name(&server.name);
    let fallen = facts.reads.fallen();
    let is_late = server.lag >= LAG_LEAST && server.reach != Reach::Down;
    let behind = format!("{} ({} bytes of WAL) behind", words::time(server.lag), server.lag_bytes);
    let evidence = reads(facts);
    if server.reach == Reach::Down {
        let title = format!("replica {name} cannot be reached: {}", words::error(&server.error));
        let next = format!(
            "look whether PostgreSQL at {} runs; its log says why not",
            words::shown(&server.host, 80)
        );
        return Some(Found::new(Cause::ReplicaOut, Severity::Risk, title).evidence(evidence).next(next));
    }
    if is_late && (fallen > 0 || server.why_no_reads.is_some()) {
        let title = format!("replica {name} is {behind}: reads run on the primary");
        let why = server.why_no_reads.as_ref().map(|why| format!("it serves no reads now: {why}"));
        return Some(
            Found::new(Cause::ReplicaLag, Severity::Risk, title)
                .weighing(server.lag.as_millis() as usize)
                .evidence(why)
                .evidence(evidence)
                .next(
                    "look what holds its replay back (a long query there, its disk, the network: pg_stat_replication on \
                     the primary); reads for which older answers will do may ask for less (consistency)",
                ),
        );
    }
    let why = server.why_no_reads.as_ref()?;
    let title = format!("replica {name} serves no reads: {why}");
    Some(
        Found::new(Cause::ReplicaOut, Severity::Risk, title)
            .evidence(evidence)
            .next("SHOW REPLICAS and SHOW HEALTH on the console tell more"),
    )
}

/// Where reads ran, if some ran on the primary that might have run on a replica.
fn reads(facts: &Facts) -> Option<String> {
    let reads = facts.reads;
    let reasons = [
        (reads.behind, "not all that was committed had been replayed"),
        (reads.fresh_write, "what was written to their tables had not been replayed"),
        (reads.floor, "what their sessions had seen had not been replayed"),
        (reads.no_replica, "no replica served reads"),
    ];
    let told: Vec<String> = reasons
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, why)| format!("{count} since {why}"))
        .collect();
    (reads.fallen() > 0).then(|| {
        format!(
            "of {} in the last {}, {} ran on the primary: {}",
            words::count((reads.fallen() + reads.on_replicas) as usize, "read"),
            words::time(facts.window),
            reads.fallen(),
            told.join(", ")
        )
    })
}

fn outbox_behind(facts: &Facts, outbox: &Outbox) -> Option<Found> {
    let is_down = |server: &Server| server.name == outbox.server && server.reach == Reach::Down;
    if facts
        .servers
        .iter()
        .any(|server| is_down(server) || (server.is_primary && server.reach == Reach::Down))
    {
        // It is told with the server.
        return None;
    }
    let is_late = outbox.waiting > 0 && outbox.lag >= JOB_WAIT_LEAST;
    if !is_late && outbox.trouble.is_none() && outbox.is_ready {
        return None;
    }
    let title = match (&outbox.trouble, outbox.waiting) {
        (_, 1..) => format!(
            "{} on the primary and not moved to the job database, the first for {}",
            words::wait(outbox.waiting as usize, "job"),
            words::time(outbox.lag)
        ),
        (Some(_), 0) => "jobs are not moved from the primary to the job database".to_owned(),
        (None, 0) if !outbox.is_ready => "jobs cannot be enqueued on the primary yet (outbox)".to_owned(),
        (None, 0) => return None,
    };
    let trouble = outbox.trouble.iter().map(|trouble| format!("the relay: {}", words::error(trouble)));
    let severity = if is_late { Severity::Harm } else { Severity::Risk };
    Some(
        Found::new(Cause::OutboxBehind, severity, title)
            .weighing(outbox.waiting as usize)
            .evidence(trouble)
            .next("`bulkhead jobs status` tells who moves jobs and what is in the way; nothing is lost meanwhile"),
    )
}

/// Clients that will fill a pool if they go on.
fn leaks(facts: &Facts) -> Vec<Found> {
    let holders: Vec<&Holder> = facts.pools.iter().flat_map(|pool| &pool.holders).collect();
    let is_idle = |holder: &&&Holder| holder.is_in_transaction() && holder.lasts >= LEAK_LEAST;
    let is_stalled = |holder: &&&Holder| holder.stalled.is_some_and(|stalled| stalled >= LEAK_LEAST);
    let stalled: Vec<&Holder> = holders.iter().filter(is_stalled).copied().collect();
    let idle: Vec<&Holder> =
        holders.iter().filter(is_idle).filter(|holder| !is_stalled(holder)).copied().collect();
    let found = |cause, what: &str, of: &[&Holder], next: &str| {
        (!of.is_empty()).then(|| {
            let title = format!("{} {what} for more than a minute", words::count(of.len(), "client"));
            let lines = of.iter().take(NAMES).map(|holder| {
                let number = holder.client.map_or_else(String::new, |client| format!("client {client}: "));
                let text = holder
                    .text
                    .as_deref()
                    .map_or_else(String::new, |text| format!(": {}", words::statement(text)));
                format!("{number}{}, for {}{text}", words::who(&holder.who), words::time(holder.lasts))
            });
            Found::new(cause, Severity::Risk, title).weighing(of.len()).evidence(lines).next(next)
        })
    };
    [
        found(
            Cause::IdleInTransaction,
            "did nothing in an open transaction",
            &idle,
            "have the application commit or roll back; KILL_CLIENT on the console ends one",
        ),
        found(
            Cause::NotReading,
            "took nothing of the answers that wait",
            &stalled,
            "have the application read, or close; KILL_CLIENT on the console ends one",
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}
