//! The table of incidents: what happens, which cause must come first, and words that its title must have.

use super::*;

pub(super) type Change = fn(&mut Facts);

/// Incidents: the change, the cause that must come first, and words that its title must have.
pub(super) const INCIDENTS: &[(&str, Change, Cause, &[&str])] = &[
    (
        "slow jobs",
        |facts| crowd(&mut facts.pools[2], four("worker", Phase::Runs)),
        Cause::PoolFull,
        &["pool \"jobs\" is full of running statements", "\"worker\"", "4 of 4"],
    ),
    (
        "a leak of transactions",
        |facts| crowd(&mut facts.pools[0], four("leaky", Phase::InTransaction)),
        Cause::PoolFull,
        &["pool \"primary\" on \"main\"", "transactions in which clients", "\"leaky\""],
    ),
    (
        "failed transactions that nobody ends",
        |facts| crowd(&mut facts.pools[0], four("leaky", Phase::InFailedTransaction)),
        Cause::PoolFull,
        &["transactions in which clients"],
    ),
    (
        "pinned sessions",
        |facts| {
            crowd(&mut facts.pools[0], four("listener", Phase::Keeps));
            facts.pools[0].holders.iter_mut().for_each(|holder| holder.pin = Some("advisory_locks"));
        },
        Cause::PoolFull,
        &["pinned sessions", "\"listener\""],
    ),
    (
        "clients that do not read",
        |facts| {
            crowd(&mut facts.pools[0], four("report", Phase::Runs));
            facts.pools[0].holders.iter_mut().for_each(|holder| holder.stalled = Some(seconds(4)));
        },
        Cause::PoolFull,
        &["answers that clients", "\"report\"", "do not read"],
    ),
    (
        "a lock of somebody past Bulkhead",
        |facts| {
            crowd(&mut facts.pools[0], four("web", Phase::Runs));
            facts.locks = (1..=4).map(|pid| blocked_by(pid, &outsider())).collect();
        },
        Cause::Lock,
        &[
            "process 99",
            "\"psql\"",
            "not Bulkhead's client",
            "blocks 4 others",
            "idle in a transaction for 30 s",
        ],
    ),
    (
        "a chain of locks ends at a client",
        |facts| {
            crowd(&mut facts.pools[0], four("web", Phase::Runs));
            let middle = Blocker { pid: 2, client: Some(1002), who: who("web"), ..outsider() };
            let end = Blocker { pid: 1, client: Some(1001), who: who("migration"), ..outsider() };
            facts.locks = vec![blocked_by(3, &middle), blocked_by(4, &middle), blocked_by(2, &end)];
        },
        Cause::Lock,
        &["client 1001", "\"migration\"", "server process 1", "blocks 3 others"],
    ),
    (
        "a lock that two of eight wait for explains no full pool",
        |facts| {
            crowd(&mut facts.pools[0], (1..=8).map(|pid| holder(pid, "web", Phase::Runs)).collect());
            facts.locks = (1..=2).map(|pid| blocked_by(pid, &outsider())).collect();
        },
        Cause::PoolFull,
        &["running statements"],
    ),
    (
        "the primary does not answer, and all else follows",
        |facts| {
            crowd(&mut facts.pools[0], four("web", Phase::Runs));
            crowd(&mut facts.pools[2], four("worker", Phase::Runs));
            let error = "no answer within 5s".to_owned();
            facts.servers[0] = Server { reach: Reach::Down, error, ..server("main") };
        },
        Cause::PrimaryDown,
        &["the primary, server \"main\"", "no answer within 5s"],
    ),
    (
        "no host takes writes",
        |facts| {
            let error = "target_session_attrs: it is read-only".to_owned();
            facts.servers[0] = Server { reach: Reach::Down, hosts: 3, error, ..server("main") };
        },
        Cause::PrimaryDown,
        &["does not serve"],
    ),
    (
        "a primary in recovery",
        |facts| facts.servers[0].reach = Reach::WrongRole,
        Cause::PrimaryReadOnly,
        &["is in recovery"],
    ),
    (
        "the server has no more connections",
        |facts| {
            facts.servers[0].reach = Reach::Full;
            facts.servers[0].error = "FATAL: sorry, too many clients already (53300)".to_owned();
            (facts.pools[0].waiting, facts.pools[0].oldest_wait) = (4, seconds(3));
        },
        Cause::ServerFull,
        &["no place for more connections", "too many clients"],
    ),
    (
        "the job database is down",
        |facts| {
            facts.servers[2].reach = Reach::Down;
            facts.servers[2].error = "connection refused".to_owned();
            facts.outbox = Some(Outbox {
                is_ready: true,
                waiting: 7,
                lag: seconds(9),
                server: "jobs".to_owned(),
                trouble: None,
            });
        },
        Cause::ServerDown,
        &["server \"jobs\" does not serve: connection refused"],
    ),
    (
        "jobs are not moved",
        |facts| {
            let trouble = Some("the tables differ".to_owned());
            facts.outbox = Some(Outbox {
                is_ready: true,
                waiting: 7,
                lag: seconds(9),
                server: "jobs".to_owned(),
                trouble,
            });
        },
        Cause::OutboxBehind,
        &["7 jobs wait on the primary"],
    ),
    (
        "a replica is behind",
        |facts| {
            facts.servers[1].lag = seconds(8);
            facts.reads = Reads { behind: 30, on_replicas: 2, ..Reads::default() };
        },
        Cause::ReplicaLag,
        &["replica \"replica\" is 8.0 s", "reads run on the primary"],
    ),
    (
        "a replica is out",
        |facts| facts.servers[1].why_no_reads = Some("disabled on the console".to_owned()),
        Cause::ReplicaOut,
        &["serves no reads: disabled on the console"],
    ),
    (
        "no places for clients",
        |facts| {
            facts.clients =
                Clients { connected: 100, max: 100, no_place: 12, by_name: vec![(who("web"), 90, 88)] };
        },
        Cause::ClientsFull,
        &["clients are refused: 100 of 100", "limits.max_clients"],
    ),
    (
        "refusals of a pool without a queue",
        |facts| {
            crowd(&mut facts.pools[0], four("web", Phase::Runs));
            (facts.pools[0].waiting, facts.pools[0].max_waiting) = (0, 0);
            facts.pools[0].refused = Refusals { full: 9, ..Refusals::default() };
        },
        Cause::PoolFull,
        &["running statements"],
    ),
    (
        "refusals that are over",
        |facts| facts.pools[0].refused = Refusals { timeout: 9, ..Refusals::default() },
        Cause::Refusals,
        &["has room again"],
    ),
    (
        "no places for pins",
        |facts| {
            facts.pools[0].pins_wanted = true;
            facts.pools[0].pinned = 3;
        },
        Cause::PinsFull,
        &["3 of 3"],
    ),
    (
        "a paused pool",
        |facts| {
            facts.pools[0].is_paused = true;
            facts.pools[0].waiting = 2;
        },
        Cause::PoolHeld,
        &["paused on the console"],
    ),
    (
        "connections that take long to open",
        |facts| {
            (facts.pools[0].waiting, facts.pools[0].oldest_wait, facts.pools[0].connecting) =
                (2, seconds(1), 1);
        },
        Cause::ServerSlow,
        &["slow to let connections", "1 connection being opened"],
    ),
    (
        "two primaries",
        |facts| facts.servers[0].rivals = vec!["old:5432".to_owned()],
        Cause::TwoPrimaries,
        &["old:5432"],
    ),
    (
        "a failover a moment ago",
        |facts| (facts.servers[0].host_changes, facts.servers[0].host_for) = (1, Some(seconds(4))),
        Cause::Moved,
        &["moved to main:5432 4.0 s ago"],
    ),
    (
        "an old transaction while there is room",
        |facts| {
            facts.pools[0].holders =
                vec![Holder { lasts: seconds(70), ..holder(1, "leaky", Phase::InTransaction) }];
            facts.pools[0].leased = 1;
        },
        Cause::IdleInTransaction,
        &["1 client did nothing"],
    ),
    (
        "a client that does not read while there is room",
        |facts| {
            facts.pools[0].holders =
                vec![Holder { stalled: Some(seconds(70)), ..holder(1, "report", Phase::Runs) }];
            facts.pools[0].leased = 1;
        },
        Cause::NotReading,
        &["1 client took nothing"],
    ),
    ("the end", |facts| facts.is_draining = true, Cause::ShuttingDown, &["shutting down"]),
];
