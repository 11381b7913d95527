//! `kill -9` of Bulkhead, of the primary and of the job database at every place of the relay's conversation, while an
//! application writes its rows and its jobs: within one transaction, jobs alone, and, beside them, as applications do
//! without an outbox, the job behind the commit.
//!
//! The relay is a conversation with two servers, so all that can be different when one of the three dies is how far each
//! conversation is. A [`Point`] is such a place by name: there the network holds the relay's next word, or a server's
//! answer to it, the one to be killed is killed, and what was held comes through or does not.
//!
//! The tests of `make test` stop at every point once. `make drill ONLY=enqueue` does so with 2,000 jobs in each of `ROUNDS`,
//! every point with each of the three at least twice in 100.

mod load;
mod verdict;

use super::{LONG, Yard};
use crate::support::{Held, Place, Proxy, Random, Towards, eventually};
use load::Load;
pub(crate) use verdict::Verdict;

/// Whose connection is held.
const RELAY: &str = "bulkhead outbox\0";

/// A COMMIT of its own.
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";
/// And the server's word for it.
const COMMITTED: &[u8] = b"COMMIT\0";

/// With these words every job's name begins.
const KEY: &str = "drill ";

/// How long the one that is to be killed lives yet, at most, once the relay is held.
const MOMENT_MS: u64 = 20;

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Victim {
    Bulkhead,
    Primary,
    Jobs,
}

const VICTIMS: [Victim; 3] = [Victim::Bulkhead, Victim::Primary, Victim::Jobs];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Primary,
    Jobs,
}

/// What brings the relay there, if its daily work does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    Work,
    /// Its connection to the job database is ended.
    Login,
    /// A job that the job database refuses.
    Refusal,
    /// What the ledger has is old.
    Age,
}

/// A place at which the relay is stopped.
struct Point {
    name: &'static str,
    side: Side,
    towards: Towards,
    text: &'static [u8],
    needs: Needs,
}

const fn asks(name: &'static str, side: Side, text: &'static [u8], needs: Needs) -> Point {
    Point { name, side, towards: Towards::Upstream, text, needs }
}

const fn hears(name: &'static str, side: Side, text: &'static [u8], needs: Needs) -> Point {
    Point { name, side, towards: Towards::Client, text, needs }
}

/// All of them, in the order of a relay's life. Their number has no divisor in common with that of the victims, so that as
/// many rounds as their product are every point with every victim.
const POINTS: [Point; 16] = [
    asks("before it has the lock", Side::Jobs, b"pg_try_advisory_lock", Needs::Login),
    asks("before its statements are prepared", Side::Jobs, b"PREPARE bulkhead_put_0", Needs::Login),
    asks("before rows are taken from the primary", Side::Primary, b"COPY (WITH picked", Needs::Work),
    hears("rows are taken and have not come", Side::Primary, KEY.as_bytes(), Needs::Work),
    asks("rows are on their way to the job database", Side::Jobs, KEY.as_bytes(), Needs::Work),
    asks("before rows are put into the job table", Side::Jobs, b"EXECUTE bulkhead_put_0", Needs::Work),
    hears("rows are put, and the answer has not come", Side::Jobs, b"fresh\0", Needs::Work),
    asks("before workers are told", Side::Jobs, b"EXECUTE bulkhead_tell_0", Needs::Work),
    asks("before COMMIT in the job database", Side::Jobs, COMMIT, Needs::Work),
    hears("the job database's answer to COMMIT has not come", Side::Jobs, COMMITTED, Needs::Work),
    asks("before COMMIT on the primary", Side::Primary, COMMIT, Needs::Work),
    hears("the primary's answer to COMMIT has not come", Side::Primary, COMMITTED, Needs::Work),
    asks("before a refused job is set aside", Side::Primary, b"INTO bulkhead.refused", Needs::Refusal),
    hears(
        "a refused job is set aside, and the answer has not come",
        Side::Primary,
        b"INSERT 0 1\0",
        Needs::Refusal,
    ),
    asks("before the ledger forgets", Side::Jobs, b"DELETE FROM bulkhead.relayed", Needs::Age),
    hears("the ledger has forgotten, and the answer has not come", Side::Jobs, b"DELETE ", Needs::Age),
];

/// The one that is killed in a round.
fn victim(round: u64) -> Victim {
    VICTIMS[(round % VICTIMS.len() as u64) as usize]
}

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub(crate) rounds: u64,
    /// Jobs of each way in a round: as many within transactions, alone, and behind the commit.
    pub(crate) jobs: u64,
    pub(crate) seed: u64,
}

/// Both servers, Bulkhead, and everybody who uses them.
struct Drill {
    yard: Yard,
    proxy: Proxy,
    load: Load,
    random: Random,
    /// Jobs that the job database was made to refuse.
    refused: Vec<String>,
}

/// All rounds, and what has become of every job. Says after each round that it is over.
pub(crate) async fn drill(extent: Extent, say: impl Fn(u64)) -> Verdict {
    let mut drill = Drill::start(extent).await;
    for round in 0..extent.rounds {
        drill.round(round, extent.jobs).await;
        say(round + 1);
    }
    drill.end(extent).await
}

impl Drill {
    async fn start(extent: Extent) -> Self {
        let yard = Yard::start().await;
        yard.primary.query("SET ROLE app; CREATE TABLE orders (key text PRIMARY KEY)").await;
        yard.jobs.query("ALTER TABLE oban_jobs ADD CHECK (queue <> 'nowhere')").await;
        let config = yard.config().set("jobs", "outbox_batch", 100).set("jobs", "outbox_keep", "60s");
        let proxy = yard.bulkhead(&config).await;
        let load = Load::start(&proxy, &yard);
        Self { yard, proxy, load, random: Random::new(extent.seed), refused: Vec::new() }
    }

    /// Kills one of the three at a point, with so many jobs of each way before it and behind it.
    async fn round(&mut self, round: u64, jobs: u64) {
        let point = &POINTS[(round % POINTS.len() as u64) as usize];
        let who = format!("round {round}, {:?} killed {}", victim(round), point.name);
        let before = self.random.below(jobs / 2);
        self.load.go_on_to(round * jobs + before).await;
        let network = match point.side {
            Side::Primary => &self.yard.to_primary,
            Side::Jobs => &self.yard.to_jobs,
        };
        if point.needs == Needs::Age {
            let age = "UPDATE bulkhead.relayed SET relayed_at = relayed_at - interval '1 hour'";
            self.yard.jobs.query(age).await;
        }
        network.set_trap(Place { of: RELAY, towards: point.towards, text: point.text });
        self.load.allow((round + 1) * jobs);
        match point.needs {
            Needs::Login => {
                let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                           WHERE application_name = 'bulkhead outbox'";
                self.yard.jobs.query(end).await;
            }
            Needs::Refusal => {
                let key = format!("{KEY}refused {round}");
                let sql = format!("INSERT INTO oban_jobs (worker, queue) VALUES ('{key}', 'nowhere')");
                self.yard.primary.query(&sql).await;
                self.refused.push(key);
            }
            Needs::Work | Needs::Age => {}
        }
        eventually(&who, LONG, async || network.holds().then_some(())).await;
        tokio::time::sleep(self.random.pause(MOMENT_MS)).await;
        let held = if self.random.below(2) == 0 { Held::Passes } else { Held::Lost };
        let (yard, proxy) = (&self.yard, &mut self.proxy);
        tokio::task::block_in_place(|| {
            match victim(round) {
                Victim::Bulkhead => proxy.kill(),
                Victim::Primary => yard.primary.kill(),
                Victim::Jobs => yard.jobs.kill(),
            }
            network.release(held);
            match victim(round) {
                Victim::Bulkhead => proxy.boot(),
                Victim::Primary => yard.primary.boot(),
                Victim::Jobs => yard.jobs.boot(),
            }
        });
        self.load.go_on_to((round + 1) * jobs).await;
        assert!(self.proxy.is_running(), "{who}: Bulkhead has ended");
    }

    /// Lets everything come to its end, and compares both databases with what was written.
    async fn end(self, extent: Extent) -> Verdict {
        let written = self.load.end().await;
        self.yard.wait_for_leader().await;
        self.yard.wait_until_empty().await;
        // The one that moves rows may not have heard that its last transaction is over.
        eventually("the relay is at rest", LONG, async || (!in_transaction(&self.yard).await).then_some(()))
            .await;
        let victim_of = |number: u64| victim(number / extent.jobs);
        verdict::compare(&self.yard, &written, &self.refused, victim_of).await
    }
}

async fn in_transaction(yard: &Yard) -> bool {
    let sql =
        "SELECT FROM pg_stat_activity WHERE application_name = 'bulkhead outbox' AND state LIKE 'idle in%'";
    !yard.primary.query(sql).await.is_empty() || !yard.jobs.query(sql).await.is_empty()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_come_once_whoever_is_killed_at_any_point() {
    let extent = Extent { rounds: POINTS.len() as u64, jobs: 80, seed: 0 };
    let verdict = drill(extent, |_| ()).await;
    assert!(verdict.wrong.is_empty(), "{verdict}\n{}", verdict.wrong.join("\n"));
    let jobs = extent.rounds * extent.jobs;
    assert_eq!((verdict.within(), verdict.alone), (jobs, jobs), "{verdict}");
    assert!(verdict.committed > jobs / 2 && verdict.rolled_back > jobs / 5, "{verdict}");
    assert_eq!(verdict.refused, 2, "{verdict}");
}

#[test]
fn a_drill_is_every_point_with_every_victim() {
    let rounds = (POINTS.len() * VICTIMS.len()) as u64;
    let all: std::collections::BTreeSet<_> =
        (0..rounds).map(|round| (round % POINTS.len() as u64, victim(round))).collect();
    assert_eq!(all.len() as u64, rounds);
}
