//! What a pool decides without a connection: who waits, for how long, and who is refused. Time stands still here, and
//! waits are dropped after each number of polls.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::*;
use crate::{
    auth::{RequireAuth, tls::Connector},
    backend::{Credentials, HostPort, Identity, Server, SessionAttrs},
    threads::{Home, Spawner},
};

pub(super) const HOME: Home = Home(0);

const WAIT: Duration = Duration::from_secs(2);

const LIMITS: Limits = Limits {
    max_connections: 4,
    min_connections: 0,
    max_waiting: 3,
    wait_timeout: WAIT,
    idle_timeout: Duration::ZERO,
    max_lifetime: Duration::ZERO,
    connect_timeout: Duration::from_secs(5),
    check_after: Duration::from_secs(30),
    close_timeout: Duration::from_secs(5),
    max_pinned: 2,
    pinned_idle_timeout: Duration::ZERO,
    fails_fast: false,
};

pub(super) fn identities<const N: usize>() -> [Arc<Identity>; N] {
    std::array::from_fn(|n| Arc::new(Identity::new("d", format!("u{n}"), Credentials::of_url())))
}

fn server() -> Arc<Server> {
    Arc::new(Server {
        name: "primary".to_owned(),
        hosts: vec![HostPort { host: "localhost".to_owned(), port: 5432 }],
        session_attrs: SessionAttrs::Any,
        tls: Connector::default(),
        user: "u".to_owned(),
        secret: None,
        database: "d".to_owned(),
        require_auth: RequireAuth::default(),
        application_name: None,
        numbers: Arc::default(),
        traffic: Arc::default(),
        in_use: Arc::default(),
        tcp_user_timeout: Duration::ZERO,
    })
}

/// A pool with these limits.
pub(super) fn pool_with(limits: Limits) -> Arc<ServerPool> {
    let spawner =
        Spawner { tracker: TaskTracker::new(), threads: [tokio::runtime::Handle::current()].into() };
    Arc::new(ServerPool::new("primary".into(), server(), Arc::new(Gate::default()), limits, spawner))
}

/// A pool of so many places.
pub(super) fn pool_of(max_connections: usize) -> Arc<ServerPool> {
    pool_with(Limits { max_connections, max_waiting: 10, max_pinned: 10, ..LIMITS })
}

/// A pool all of whose places others have: whoever asks it waits.
fn taken() -> Arc<ServerPool> {
    let pool = pool_with(LIMITS);
    pool.lock().leased = LIMITS.max_connections;
    pool
}

fn ask(pool: &Arc<ServerPool>, identity: &Arc<Identity>) -> Checkout {
    pool.checkout(&Wants { identity, last: None, settings: 0, home: HOME })
}

fn wait(pool: &Arc<ServerPool>, identity: &Arc<Identity>) -> Waiting {
    match ask(pool, identity) {
        Checkout::Wait(waiting) => waiting,
        other => panic!("a wait is expected, not {other:?}"),
    }
}

fn pin_place(pool: &Arc<ServerPool>) -> PinPlace {
    match pool.reserve_pin() {
        PinCheckout::Place(place) => place,
        other => panic!("a place is expected, not {other:?}"),
    }
}

fn pin_wait(pool: &Arc<ServerPool>) -> PinWaiting {
    match pool.reserve_pin() {
        PinCheckout::Wait(waiting) => waiting,
        other => panic!("a wait is expected, not {other:?}"),
    }
}

/// The outcome of one poll.
fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_at_its_bound_and_not_before() {
    let (pool, [one]) = (taken(), identities());
    let stop = CancellationToken::new();
    let keeper = tokio::spawn(keep(Arc::clone(&pool), stop.clone()));
    let began = Instant::now();
    let refusal = wait(&pool, &one).await.expect_err("nothing becomes free");
    let waited = began.elapsed();
    assert!(waited >= WAIT && waited < WAIT + Duration::from_millis(20), "{waited:?}");
    let Refusal::TimedOut { figures, waited, .. } = &refusal else { panic!("{refusal:?}") };
    assert_eq!((figures.leased, *waited), (4, WAIT));
    assert_eq!(pool.figures().waiting, 0);
    stop.cancel();
    keeper.await.expect("it ends with the program");
}

#[tokio::test(start_paused = true)]
async fn a_paused_pool_lets_everybody_wait_and_counts_from_its_resumption() {
    let (pool, [one]) = (taken(), identities());
    let stop = CancellationToken::new();
    let keeper = tokio::spawn(keep(Arc::clone(&pool), stop.clone()));
    assert!(pool.pause(WAIT * 5) && !pool.pause(WAIT * 5), "once is enough");
    // More than may wait otherwise, and for longer.
    let mut waiting: Vec<Waiting> = (0..LIMITS.max_waiting * 2).map(|_| wait(&pool, &one)).collect();
    tokio::time::sleep(WAIT * 3).await;
    assert!(waiting.iter_mut().all(|waiting| poll_once(waiting).is_pending()));
    assert!(pool.resume() && !pool.resume());
    tokio::time::sleep(WAIT / 2).await;
    assert!(waiting.iter_mut().all(|waiting| poll_once(waiting).is_pending()), "nobody is late yet");
    tokio::time::sleep(WAIT).await;
    let late = poll_once(&mut waiting[0]);
    assert!(matches!(late, Poll::Ready(Err(Refusal::TimedOut { .. }))), "{late:?}");

    assert!(pool.pause(WAIT));
    let mut waiting = wait(&pool, &one);
    tokio::time::sleep(WAIT * 2).await;
    let late = poll_once(&mut waiting);
    assert!(matches!(late, Poll::Ready(Err(Refusal::Paused { waited: WAIT }))), "{late:?}");
    pool.set_disabled(true);
    assert!(matches!(ask(&pool, &one), Checkout::Refused(Refusal::Disabled)));
    stop.cancel();
    keeper.await.expect("it ends with the program");
}

#[tokio::test(start_paused = true)]
async fn one_more_than_may_wait_is_refused_at_once() {
    let (pool, [one]) = (taken(), identities());
    let waiting: Vec<Waiting> = (0..LIMITS.max_waiting).map(|_| wait(&pool, &one)).collect();
    let Checkout::Refused(Refusal::Full { figures, .. }) = ask(&pool, &one) else { panic!("it is full") };
    assert_eq!((figures.waiting, figures.max_connections), (3, 4));
    drop(waiting);
    assert_eq!(pool.figures().waiting, 0);
    assert_eq!(pool.outstanding(), 4, "those that are leased");
    let _again = wait(&pool, &one);
}

#[tokio::test(start_paused = true)]
async fn whoever_floods_the_queue_gives_way_to_others() {
    let (pool, [greedy, other]) = (taken(), identities());
    let mut waiting: Vec<Waiting> = (0..LIMITS.max_waiting).map(|_| wait(&pool, &greedy)).collect();
    let _others = wait(&pool, &other);
    let last = poll_once(waiting.last_mut().expect("three wait"));
    assert!(matches!(last, Poll::Ready(Err(Refusal::Full { .. }))), "{last:?}");
    assert!(waiting[..2].iter_mut().all(|waiting| poll_once(waiting).is_pending()));
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_dropped_leaves_the_queue_after_any_number_of_polls() {
    let (pool, [one]) = (taken(), identities());
    for polls in 0..3 {
        let mut waiting = wait(&pool, &one);
        assert!((0..polls).all(|_| poll_once(&mut waiting).is_pending()));
        assert_eq!(pool.figures().waiting, 1);
        drop(waiting);
        assert_eq!(pool.figures().waiting, 0, "after {polls} polls");
    }
    // A refusal that nobody has taken is no place in the queue.
    let waiting = wait(&pool, &one);
    pool.send_on();
    assert_eq!(pool.figures().waiting, 0);
    drop(waiting);
    assert_eq!(pool.figures().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stays_away_refuses_at_once_what_would_wait_in_vain() {
    let (pool, [one]) = (pool_with(LIMITS), identities());
    // Others have all places at the server: no connection is made.
    pool.gate().set_places_max(0, 0);
    assert!(pool.gate().failed("refused"));
    let _early = wait(&pool, &one);
    tokio::time::advance(WAIT).await;
    let Checkout::Refused(Refusal::Unreachable(failure)) = ask(&pool, &one) else { panic!("it is hopeless") };
    assert_eq!((failure.server.as_str(), failure.message.as_str()), ("primary", "refused"));
    pool.lock().leased = 1;
    assert!(matches!(ask(&pool, &one), Checkout::Wait(_)), "one that is in use may become free");
    pool.lock().limits.fails_fast = true;
    assert!(matches!(ask(&pool, &one), Checkout::Refused(Refusal::Unreachable(_))));
    assert!(pool.gate().succeeded());
    assert!(matches!(ask(&pool, &one), Checkout::Wait(_)));
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_was_replaced_sends_everybody_on_and_one_that_comes_back_takes_them() {
    let (pool, [one]) = (taken(), identities());
    let mut waiting = wait(&pool, &one);
    assert!(poll_once(&mut waiting).is_pending());
    pool.send_on();
    assert!(matches!(poll_once(&mut waiting), Poll::Ready(Err(Refusal::Moved))));
    assert!(matches!(ask(&pool, &one), Checkout::Refused(Refusal::Moved)) && pool.is_drained());
    let again = pool.server();
    assert!(pool.adjust(LIMITS, &again, None), "somebody must keep it");
    assert!(!pool.adjust(LIMITS, &again, None) && !pool.is_drained());
    assert!(matches!(ask(&pool, &one), Checkout::Wait(_)));
    pool.drain();
    assert!(matches!(ask(&pool, &one), Checkout::Wait(_)), "whoever still asks a drained one is served");
}

#[tokio::test(start_paused = true)]
async fn a_keeper_goes_with_the_last_that_knows_its_drained_pool() {
    let (pool, [one]) = (taken(), identities());
    let mut keeper = tokio::spawn(keep(Arc::clone(&pool), CancellationToken::new()));
    let waiting = wait(&pool, &one);
    pool.drain();
    pool.lock().leased = 0;
    let soon = Duration::from_secs(3);
    assert!(tokio::time::timeout(soon, &mut keeper).await.is_err(), "somebody knows the pool");
    drop(waiting);
    drop(pool);
    tokio::time::timeout(soon, keeper).await.expect("nobody does any more").expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn pins_are_given_in_turn_and_no_place_is_lost_by_who_leaves() {
    let pool = pool_with(LIMITS);
    let (first, second) = (pin_place(&pool), pin_place(&pool));
    assert!(!pool.wants_pins());
    let (mut early, mut left, mut late) = (pin_wait(&pool), pin_wait(&pool), pin_wait(&pool));
    assert!(matches!(pool.reserve_pin(), PinCheckout::Full(PinsFull { max_pinned: 2 })), "three may wait");
    assert!(
        pool.wants_pins()
            && [&mut early, &mut left, &mut late].into_iter().all(|wait| poll_once(wait).is_pending())
    );
    drop(first);
    // The one that is dropped had not been served, the next one has been and has not looked.
    drop(left);
    drop(second);
    let Poll::Ready(place) = poll_once(&mut early) else { panic!("it was first") };
    drop(late);
    assert_eq!(pool.figures().pinned, 1, "the place that nobody took is free again");
    drop(place);
    assert_eq!(pool.figures().pinned, 0);
    assert!(!pool.wants_pins());
}

#[tokio::test(start_paused = true)]
async fn a_pin_above_the_bound_ends_when_there_is_room_again() {
    let pool = pool_with(LIMITS);
    let (first, _second) = (pin_place(&pool), pin_place(&pool));
    assert_eq!(pool.try_pin().map(drop), Err(PinsFull { max_pinned: 2 }));
    let third = pool.pin_anyway();
    assert!(third.is_over_bound() && pool.figures().pinned == 3);
    let mut waiting = pin_wait(&pool);
    drop(first);
    assert!(!third.is_over_bound() && poll_once(&mut waiting).is_pending(), "there are as many as may be");
    let server = pool.server();
    pool.adjust(Limits { max_pinned: 3, ..LIMITS }, &server, None);
    let turn = poll_once(&mut waiting);
    assert!(turn.is_ready(), "a reload that allows more serves who waits");
    assert_eq!(pool.figures().pinned, 3);
}

/// Who has more weight gets more; who has none, or cannot be reached, nothing.
#[tokio::test]
async fn members_are_chosen_by_weight_and_load() {
    let members: Vec<_> = (0..3).map(|_| pool_of(10)).collect();
    let pool = Pool { name: "replicas".to_owned(), members, keeps_sessions: false };
    let chosen = |weights: [usize; 3]| {
        let member = pool.choose_by(|at| weights[at])?;
        pool.members.iter().position(|known| Arc::ptr_eq(known, member))
    };
    assert_eq!([chosen([1, 0, 4]), chosen([0, 1, 0]), chosen([0, 0, 0])], [Some(2), Some(1), None]);
    // Sessions that wait count as load: nine times as much is more than four times the weight.
    let [user] = identities::<1>();
    let wants = Wants { identity: &user, last: None, settings: 0, home: HOME };
    let waiting: Vec<_> = (0..8).map(|_| pool.members[2].checkout(&wants)).collect();
    assert_eq!([chosen([1, 0, 4]), chosen([1, 0, 20])], [Some(0), Some(2)]);
    drop(waiting);
    pool.members[2].gate().failed("it is gone");
    assert_eq!([chosen([1, 0, 20]), chosen([0, 0, 1])], [Some(0), None]);
}
