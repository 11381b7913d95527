//! The pieces of a pool: waiting, connecting, checking, resetting, proving, pins, and what a reload changes.

use std::{sync::Arc, time::Duration};

use bulkhead::{
    backend::{Identity, Settings, handover::Needs, proof::Outcome},
    pool::{Checkout, Gate, Lease, Limits, PinCheckout, Refusal, ServerPool, Wants, keep},
    threads::{Home, Spawner},
};
use tokio::{runtime::Handle, task::yield_now};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Limited, SOON, at_every_poll, identity, server};
use crate::support::{Login, Postgres, RawClient, Role, eventually};

const HOME: Home = Home(0);

pub(super) const LIMITS: Limits = Limits {
    max_connections: 1,
    min_connections: 0,
    max_waiting: 10,
    wait_timeout: Duration::from_secs(20),
    idle_timeout: Duration::ZERO,
    max_lifetime: Duration::ZERO,
    connect_timeout: Duration::from_secs(10),
    check_after: Duration::from_secs(60),
    close_timeout: Duration::from_secs(10),
    max_pinned: 1,
    pinned_idle_timeout: Duration::ZERO,
    fails_fast: false,
};

/// A pool of one connection to a server, with its keeper, and two who use it.
pub(super) struct Yard {
    pub(super) primary: Postgres,
    pub(super) pool: Arc<ServerPool>,
    pub(super) one: Arc<Identity>,
    other: Arc<Identity>,
}

impl Yard {
    fn start() -> Self {
        let yard = Self::without_keeper(&[Handle::current()]);
        tokio::spawn(keep(Arc::clone(&yard.pool), CancellationToken::new()));
        yard
    }

    fn without_keeper(threads: &[Handle]) -> Self {
        let primary = Postgres::start(Role::Primary);
        let pool = new_pool(&primary, threads);
        Self { primary, pool, one: identity("app"), other: identity("app_two") }
    }

    async fn lease(&self) -> Lease {
        let lease = tokio::time::timeout(SOON, self.pool.lease(&wants(&self.one)))
            .await
            .expect("nobody is in the way");
        lease.unwrap_or_else(|refusal| panic!("{refusal}"))
    }

    /// Everything that was taken is free again: figures, places at the server's gate, connections at the server; and
    /// whoever comes next is served, of either identity.
    pub(super) async fn check(&self, what: &str) {
        eventually(&format!("{what}: all is free again"), SOON, async || {
            let now = self.pool.figures();
            (now.leased + now.waiting + now.connecting + now.closing + now.pinned == 0).then_some(())
        })
        .await;
        for identity in [&self.other, &self.one] {
            let next = tokio::time::timeout(SOON, self.pool.lease(&wants(identity))).await;
            let lease = next.unwrap_or_else(|_| panic!("{what}: the next one is not served"));
            let mut lease = lease.unwrap_or_else(|refusal| panic!("{what}: {refusal}"));
            let answer = lease.ask("SELECT 1").await.expect("the connection is a good one");
            assert_eq!(answer.rows, [[Some("1".to_owned())]], "{what}");
            give_back(lease);
        }
        // What was in the middle of something is closed at the server as well.
        eventually(&format!("{what}: the server has the connections that the pool has"), SOON, async || {
            (backends(&self.primary).await == self.pool.figures().idle).then_some(())
        })
        .await;
    }
}

fn wants(identity: &Arc<Identity>) -> Wants<'_> {
    Wants { identity, last: None, settings: Settings::default().hash(), home: HOME }
}

async fn backends(primary: &Postgres) -> usize {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app_trust'";
    primary.value(sql).await.parse().expect("a number")
}

fn new_pool(primary: &Postgres, threads: &[Handle]) -> Arc<ServerPool> {
    let gate = Arc::new(Gate::default());
    gate.set_places_max(LIMITS.max_connections, LIMITS.max_connections);
    let spawner = Spawner { tracker: TaskTracker::new(), threads: threads.into() };
    Arc::new(ServerPool::new("primary".to_owned(), server(primary), gate, LIMITS, spawner))
}

fn give_back(lease: Lease) {
    let proof = lease.protocol.quiescent().expect("it owes nothing");
    lease.release(proof);
}

/// Lets all tasks run that can.
async fn let_run() {
    for _ in 0..5 {
        yield_now().await;
    }
}

/// Whether there is an outcome; a lease is given back.
fn ended(outcome: Option<Result<Lease, Refusal>>) -> bool {
    let Some(outcome) = outcome else { return false };
    give_back(outcome.unwrap_or_else(|refusal| panic!("{refusal}")));
    true
}

#[tokio::test]
async fn a_lease_for_which_a_connection_is_made() {
    let yard = Yard::start();
    at_every_poll("a new connection", async |polls, when| {
        yard.pool.close_idle(|_| true);
        let what = format!("{polls} {when:?}");
        eventually(&what, SOON, async || (yard.pool.figures().taken() == 0).then_some(())).await;
        let is_over = ended(Limited::new(yard.pool.lease(&wants(&yard.one)), polls, when).await);
        yard.check(&what).await;
        is_over
    })
    .await;
}

#[tokio::test]
async fn a_lease_that_is_waited_for() {
    let yard = Yard::start();
    let polls = at_every_poll("a wait", async |polls, when| {
        let held = yard.lease().await;
        let (pool, one) = (Arc::clone(&yard.pool), Arc::clone(&yard.one));
        let waiter = tokio::spawn(Limited::new(async move { pool.lease(&wants(&one)).await }, polls, when));
        let_run().await;
        give_back(held);
        let is_over = ended(waiter.await.expect("it does not panic"));
        yard.check(&format!("{polls} {when:?}")).await;
        is_over
    })
    .await;
    assert_eq!(polls, 2, "once in the queue, once to take it");
}

/// The one that has the place belongs to another identity, and is closed for this one.
#[tokio::test]
async fn a_lease_for_which_another_makes_room() {
    let yard = Yard::start();
    at_every_poll("a share", async |polls, when| {
        let held = yard.lease().await;
        let (pool, other) = (Arc::clone(&yard.pool), Arc::clone(&yard.other));
        let waiter = tokio::spawn(Limited::new(async move { pool.lease(&wants(&other)).await }, polls, when));
        let_run().await;
        give_back(held);
        let is_over = ended(waiter.await.expect("it does not panic"));
        yard.check(&format!("{polls} {when:?}")).await;
        is_over
    })
    .await;
}

/// Whoever waits has waited for too long, by a clock that the test has stopped.
#[tokio::test]
async fn a_wait_that_is_refused() {
    let yard = Yard::start();
    at_every_poll("a wait in vain", async |polls, when| {
        let held = yard.lease().await;
        tokio::time::pause();
        let (pool, one) = (Arc::clone(&yard.pool), Arc::clone(&yard.one));
        let waiter =
            tokio::spawn(Limited::new(async move { pool.lease(&wants(&one)).await.err() }, polls, when));
        let outcome = waiter.await.expect("it does not panic");
        tokio::time::resume();
        assert!(matches!(outcome, None | Some(Some(Refusal::TimedOut { .. }))), "{outcome:?}");
        give_back(held);
        yard.check(&format!("{polls} {when:?}")).await;
        outcome.is_some()
    })
    .await;
}

/// A backend that was idle for long is asked for a sign of life.
#[tokio::test]
async fn a_lease_that_is_checked_first() {
    let yard = Yard::start();
    let server = yard.pool.server();
    at_every_poll("a check", async |polls, when| {
        give_back(yard.lease().await);
        yard.pool.adjust(Limits { check_after: Duration::ZERO, ..LIMITS }, &server, None);
        // The keeper looks at the clock.
        tokio::time::sleep(Duration::from_millis(5)).await;
        yard.pool.close_idle(|_| false);
        tokio::time::sleep(Duration::from_millis(1)).await;
        let is_over = ended(Limited::new(yard.pool.lease(&wants(&yard.one)), polls, when).await);
        yard.pool.adjust(LIMITS, &server, None);
        yard.check(&format!("{polls} {when:?}")).await;
        is_over
    })
    .await;
}

#[tokio::test]
async fn a_lease_that_is_reset_first() {
    let yard = Yard::start();
    let polls = at_every_poll("a reset", async |polls, when| {
        let mut suspect = yard.lease().await;
        suspect.ask("SET work_mem = '1MB'").await.expect("it is done");
        suspect.is_suspect = true;
        give_back(suspect);
        let is_over = ended(Limited::new(yard.pool.lease(&wants(&yard.one)), polls, when).await);
        // Whether half of it was done or all of it: nobody finds the setting.
        let mut next = yard.lease().await;
        let shown = next.ask("SHOW work_mem").await.expect("the connection is a good one");
        assert_eq!(shown.rows, [[Some("4MB".to_owned())]], "{polls} {when:?}");
        give_back(next);
        yard.pool.close_idle(|_| true);
        yard.check(&format!("{polls} {when:?}")).await;
        is_over
    })
    .await;
    assert!(polls >= 3, "DISCARD ALL, and a new seed");
}

#[tokio::test]
async fn a_lease_that_gets_settings() {
    let yard = Yard::start();
    let settings =
        |bytes: &str| Arc::new(Settings::new([("work_mem".to_owned(), bytes.as_bytes().to_vec())]));
    let own = settings("1MB");
    at_every_poll("settings", async |polls, when| {
        let mut lease = yard.lease().await;
        let needs = Needs {
            settings: &own,
            is_own: false,
            forgets_sequences: true,
            forgets_statements: false,
            closes: false,
        };
        let is_over = {
            let made = Limited::new(lease.make_ready(needs), polls, when).await;
            made.inspect(|made| assert!(made.is_ok(), "{made:?}")).is_some()
        };
        drop(lease);
        yard.check(&format!("{polls} {when:?}")).await;
        is_over
    })
    .await;
}

#[tokio::test]
async fn a_proof_of_a_login() {
    let yard = Yard::start();
    at_every_poll("a proof", async |polls, when| {
        give_back(yard.lease().await);
        let proof = Limited::new(yard.pool.prove(&yard.one, HOME, SOON), polls, when).await;
        yard.check(&format!("{polls} {when:?}")).await;
        assert!(matches!(proof, None | Some(Outcome::Proven)), "{proof:?}");
        proof.is_some()
    })
    .await;
}

#[tokio::test]
async fn a_place_among_the_pins() {
    let yard = Yard::start();
    let polls = at_every_poll("a pin", async |polls, when| {
        let PinCheckout::Place(held) = yard.pool.reserve_pin() else { panic!("nobody has it") };
        let PinCheckout::Wait(waiting) = yard.pool.reserve_pin() else { panic!("it is taken") };
        let waiter = tokio::spawn(Limited::new(waiting, polls, when));
        let_run().await;
        assert_eq!(yard.pool.wants_pins(), polls > 0 && !waiter.is_finished());
        drop(held);
        let place = waiter.await.expect("it does not panic");
        assert_eq!(yard.pool.figures().pinned, usize::from(place.is_some()), "{polls} {when:?}");
        let is_over = place.is_some();
        drop(place);
        assert!(matches!(yard.pool.reserve_pin(), PinCheckout::Place(_)), "{polls} {when:?}");
        yard.check(&format!("{polls} {when:?}")).await;
        is_over
    })
    .await;
    assert_eq!(polls, 2, "once in the queue, once to take it");
}

/// What a reload does while somebody waits: more places, another server, none any more.
#[tokio::test]
async fn a_wait_during_a_reload() {
    for reload in ["grow", "move", "drain"] {
        let yard = Yard::start();
        let server = yard.pool.server();
        at_every_poll(reload, async |polls, when| {
            let held = yard.lease().await;
            let (pool, one) = (Arc::clone(&yard.pool), Arc::clone(&yard.one));
            let waiter =
                tokio::spawn(Limited::new(async move { pool.lease(&wants(&one)).await }, polls, when));
            let_run().await;
            let mut held = Some(held);
            match reload {
                "grow" => {
                    yard.pool.gate().set_places_max(2, 2);
                    yard.pool.adjust(Limits { max_connections: 2, ..LIMITS }, &server, None);
                }
                "move" => yard.pool.send_on(),
                _ => {
                    yard.pool.drain();
                    held.take().into_iter().for_each(give_back);
                }
            }
            let outcome = waiter.await.expect("it does not panic");
            let is_over = match outcome {
                Some(Err(Refusal::Moved)) if reload == "move" => true,
                other => ended(other),
            };
            held.into_iter().for_each(give_back);
            yard.pool.gate().set_places_max(1, 1);
            yard.pool.adjust(LIMITS, &server, None);
            yard.check(&format!("{reload} {polls} {when:?}")).await;
            is_over
        })
        .await;
    }
}

/// The keeper itself: what it has not done, the next one does.
#[tokio::test]
async fn a_keeper() {
    let yard = Yard::without_keeper(&[Handle::current()]);
    let server = yard.pool.server();
    at_every_poll("a keeper", async |polls, when| {
        // One to be closed, and one that has waited for too long already.
        let stop = CancellationToken::new();
        drop(yard.lease().await);
        yard.pool.adjust(Limits { wait_timeout: Duration::ZERO, ..LIMITS }, &server, None);
        let Checkout::Wait(waiting) = yard.pool.checkout(&wants(&yard.one)) else { panic!("it is full") };
        let keeper = tokio::spawn(Limited::new(keep(Arc::clone(&yard.pool), stop.clone()), polls, when));
        let other = tokio::spawn(waiting);
        // It would go on for ever.
        tokio::time::sleep(Duration::from_millis(30)).await;
        let goes_on = !keeper.is_finished();
        stop.cancel();
        let is_over = keeper.await.expect("it does not panic").is_some();
        yard.pool.adjust(LIMITS, &server, None);
        let stop = CancellationToken::new();
        let next = tokio::spawn(keep(Arc::clone(&yard.pool), stop.clone()));
        let outcome = tokio::time::timeout(SOON, other).await.expect("it is served or refused");
        if let Ok(lease) = outcome.expect("it does not panic") {
            give_back(lease);
        }
        yard.check(&format!("{polls} {when:?}")).await;
        stop.cancel();
        next.await.expect("it does not panic");
        // The last one has closed what was idle.
        eventually("all is closed", SOON, async || (yard.pool.figures().taken() == 0).then_some(())).await;
        is_over && goes_on
    })
    .await;
}

/// The thread that makes a connection is gone: its place is free, and another one makes the next.
#[tokio::test]
async fn the_making_of_a_connection() {
    let primary = Postgres::start(Role::Primary);
    let mut observer = RawClient::login(primary.port(), Login::Admin, "app").await;
    for turns in 1_usize.. {
        let thread = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("it starts");
        let pool = new_pool(&primary, &[Handle::current(), thread.handle().clone()]);
        let keeper = tokio::spawn(keep(Arc::clone(&pool), CancellationToken::new()));
        let one = identity("app");
        let elsewhere = Wants { home: Home(1), ..wants(&one) };
        let Checkout::Wait(waiting) = pool.checkout(&elsewhere) else { panic!("there is none yet") };
        assert_eq!(pool.figures().connecting, 1);
        drop(waiting);
        let worked = tokio::task::spawn_blocking(move || {
            thread.block_on(async {
                for _ in 0..turns {
                    yield_now().await;
                }
            });
            thread.shutdown_background();
        });
        worked.await.expect("it does not panic");
        let now = pool.figures();
        if now.idle == 1 {
            // It came about, on a thread that is no more.
            assert!(turns > 2, "it takes more than that");
            return;
        }
        assert_eq!(now.connecting + now.leased + now.waiting, 0, "{turns} turns: {now:?}");
        let next = tokio::time::timeout(SOON, pool.lease(&wants(&one))).await.expect("its place is free");
        drop(next.unwrap_or_else(|refusal| panic!("{refusal}")));
        eventually("all is closed", SOON, async || (pool.figures().taken() == 0).then_some(())).await;
        keeper.abort();
        let all = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app_trust'";
        let observer = &mut observer;
        eventually("the server has none left", SOON, async || {
            (observer.query_value(all).await == "0").then_some(())
        })
        .await;
        assert!(turns < 5_000, "it does not end");
    }
}
