//! Two instances over the same pair of servers: the one that moves jobs is killed or frozen, at any moment, another one takes
//! over, and one that wakes up later brings nothing twice.

use std::time::Duration;

use super::{LONG, Yard};
use crate::support::{Held, Place, Proxy, Random, Signal, Towards, eventually};

const MOVES: &str = "this instance moves jobs";

/// Ends the connection of the one that moves jobs, as the job database does when it has been silent for too long.
const END_LEADER: &str = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted \
    AND objid = x'68656164'::int8::oid";

/// Two instances, and which of them moves jobs.
struct Pair {
    yard: Yard,
    proxies: [Proxy; 2],
    /// How often each has begun to move jobs.
    begun: [usize; 2],
}

impl Pair {
    async fn start(yard: Yard) -> Self {
        let config = yard.config().set("auth", "method", "trust");
        let proxies = [yard.bulkhead(&config).await, yard.bulkhead(&config).await];
        let begun = [proxies[0].log().matches(MOVES).count(), proxies[1].log().matches(MOVES).count()];
        assert_eq!(begun, [1, 0]);
        Self { yard, proxies, begun }
    }

    /// Ends the connection of the one that moves jobs, and waits until one of them has begun anew.
    async fn next_leader(&mut self) -> usize {
        self.begun = self.counts();
        self.yard.jobs.query(END_LEADER).await;
        eventually("another one takes over", LONG, async || {
            (0..2).find(|at| self.proxies[*at].log().matches(MOVES).count() > self.begun[*at])
        })
        .await;
        usize::from(self.counts()[1] > self.begun[1])
    }

    fn counts(&self) -> [usize; 2] {
        [0, 1].map(|at: usize| self.proxies[at].log().matches(MOVES).count())
    }

    /// The one that has begun last.
    fn leader(&self) -> usize {
        let last = |at: usize| {
            let log = self.proxies[at].log();
            log.lines().rfind(|line| line.contains(MOVES)).map(ToOwned::to_owned)
        };
        // Lines begin with their time.
        usize::from(last(1) > last(0))
    }

    async fn add(&self, name: &str) {
        let client = self.yard.primary.admin().await;
        client.execute(self.yard.library.add, &[&vec![name]]).await.expect("a job can be added");
    }

    async fn each_came_once(&self, names: &[String]) {
        self.yard.wait_until_empty().await;
        eventually("all have come", LONG, async || {
            let arrivals = self.yard.arrivals().await;
            names.iter().all(|name| arrivals.contains_key(name)).then_some(())
        })
        .await;
        let arrivals = self.yard.arrivals().await;
        assert!(arrivals.values().all(|count| *count == 1), "{arrivals:?}");
        assert_eq!(arrivals.len(), names.len());
    }
}

/// Frozen before the one COMMIT or the other, and awake once another one moves jobs.
async fn wake_late(yard: Yard) {
    let mut pair = Pair::start(yard).await;
    let mut names = Vec::new();
    for (round, at_jobs) in [(0, true), (1, false), (2, true), (3, false)] {
        let relay = if at_jobs { &pair.yard.to_jobs } else { &pair.yard.to_primary };
        relay.set_trap(Place {
            of: "bulkhead outbox",
            towards: Towards::Upstream,
            text: b"Q\0\0\0\x0bCOMMIT\0",
        });
        names.push(format!("frozen {round}"));
        pair.add(&names[names.len() - 1]).await;
        eventually("it is about to commit", LONG, async || relay.holds().then_some(())).await;
        let leader = pair.leader();
        pair.proxies[leader].signal(Signal::STOP);
        if round < 2 {
            // Else it hangs in the network, and arrives behind what the other one does.
            relay.release(Held::Passes);
        }
        let next = pair.next_leader().await;
        assert_ne!(next, leader, "the frozen one");
        names.push(format!("behind {round}"));
        pair.add(&names[names.len() - 1]).await;
        let name = names[names.len() - 1].clone();
        if pair.yard.library.waits_in == pair.yard.library.table {
            // A row that somebody else holds keeps none back.
            eventually("the next one moves jobs", LONG, async || {
                pair.yard.arrivals().await.contains_key(&name).then_some(())
            })
            .await;
        }
        relay_of(&pair.yard, at_jobs).release(Held::Passes);
        pair.proxies[leader].signal(Signal::CONT);
        pair.each_came_once(&names).await;
    }
}

fn relay_of(yard: &Yard, at_jobs: bool) -> &crate::support::Relay {
    if at_jobs { &yard.to_jobs } else { &yard.to_primary }
}

#[tokio::test]
async fn a_frozen_instance_that_wakes_up_brings_nothing_twice() {
    wake_late(Yard::start().await).await;
}

#[tokio::test]
async fn a_frozen_instance_that_wakes_up_makes_no_call_twice() {
    wake_late(Yard::of_keys().await).await;
}

/// At any moment of what it does.
#[tokio::test]
async fn leaders_that_are_killed_or_frozen_under_load_lose_and_double_nothing() {
    let mut pair = Pair::start(Yard::start().await).await;
    let mut random = Random::new(7);
    let mut names = Vec::new();
    for round in 0..8 {
        let client = pair.yard.primary.admin().await;
        for lot in 0..20 {
            let lot: Vec<String> = (0..3).map(|n| format!("{round}/{lot}/{n}")).collect();
            client.execute(pair.yard.library.add, &[&lot]).await.expect("jobs can be added");
            names.extend(lot);
        }
        tokio::time::sleep(Duration::from_micros(random.below(20_000))).await;
        let leader = pair.leader();
        if round % 2 == 0 {
            pair.proxies[leader].signal(Signal::STOP);
        } else {
            pair.proxies[leader].kill();
        }
        let next = pair.next_leader().await;
        assert_ne!(next, leader);
        if round % 2 == 0 {
            pair.proxies[leader].signal(Signal::CONT);
        } else {
            pair.proxies[leader].boot();
        }
    }
    pair.each_came_once(&names).await;
}

/// A row that nobody reads on its way is not locked for ever: the primary gives its reader up, though the reader's machine
/// goes on to say that it is there.
#[tokio::test]
async fn a_relay_that_does_not_read_what_it_has_asked_for_is_given_up() {
    const ROWS: usize = 24;
    let yard = Yard::start().await;
    let proxy = yard.bulkhead(&yard.config()).await;
    yard.to_primary.set_trap(Place { of: "bulkhead outbox", towards: Towards::Client, text: b"xxxxxxxx" });
    let add = format!(
        "INSERT INTO oban_jobs (worker, args) SELECT 'w ' || n, to_jsonb(repeat('x', 1000000)) FROM generate_series(1, {ROWS}) AS n"
    );
    yard.primary.query(&add).await;
    eventually("it is on its way", LONG, async || yard.to_primary.holds().then_some(())).await;
    proxy.signal(Signal::STOP);
    let free = "SELECT count(*) FROM (SELECT FROM oban_jobs FOR UPDATE SKIP LOCKED) AS free";
    assert_ne!(yard.primary.value(free).await, ROWS.to_string());
    eventually("the primary gives it up", LONG * 2, async || {
        (yard.primary.value(free).await == ROWS.to_string()).then_some(())
    })
    .await;
    yard.to_primary.release(Held::Lost);
    proxy.signal(Signal::CONT);
    yard.wait_until_empty().await;
    let arrivals = yard.arrivals().await;
    assert!(arrivals.len() == ROWS && arrivals.values().all(|count| *count == 1), "{arrivals:?}");
}
