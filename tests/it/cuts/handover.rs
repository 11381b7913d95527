//! A connection that is being reset for its next session is lost, or cancelled, at that very moment: nobody gets it
//! before it is confirmed to be clean, and nobody is hit.
//!
//! A session that has had temporary objects makes DISCARD ALL look for more of them: a lock on the catalog of dependencies
//! holds it for as long as a test wants.

use std::time::Duration;

use tokio_postgres::Client;

use super::{LEAVES, Lane, Lanes, NO_STATE, STATE};
use crate::support::{Message, RawClient, error_code, eventually};

const SOON: Duration = Duration::from_secs(10);

/// SQLSTATE `query_canceled`.
const CANCELED: &str = "57014";

/// What another session must not find, by one that has had a temporary table.
const LEFT: [&str; 3] = ["CREATE TEMP TABLE passing (a int)", "DROP TABLE passing", LEAVES];

/// The same, without settings when it is left.
const LEFT_WITHOUT_SETTINGS: [&str; 4] =
    [LEFT[0], LEFT[1], "DO $$ BEGIN PERFORM set_config('work_mem', '1MB', false); END $$", "RESET work_mem"];

/// A connection that somebody has left as no other session may find it, and whose reset cannot end.
struct Held {
    lanes: Lanes,
    /// Holds the lock.
    admin: Client,
    /// The server's process.
    pid: String,
    /// Who has had it before, and is still there.
    former: RawClient,
}

impl Held {
    async fn start(left: &[&str]) -> Self {
        let mut lanes = Lanes::start(1).await;
        let lane = &mut lanes.lanes[0];
        let mut former = lane.client().await;
        let mut passing = lane.client().await;
        let pid = former.query_value("SELECT pg_backend_pid()").await;
        for sql in left {
            assert_eq!(error_code(&passing.ask(sql).await), None, "{sql}");
        }
        assert_eq!(passing.query_value("SELECT pg_backend_pid()").await, pid);
        passing.terminate().await;
        assert_eq!(passing.try_read_message().await, None);
        lane.proxy.wait_for_metric("bulkhead_clients", 1.0).await;
        let admin = admin_of(&lanes).await;
        // Whoever reads passes, whoever removes something waits.
        admin.batch_execute("BEGIN; LOCK TABLE pg_depend IN SHARE MODE").await.expect("a superuser may");
        Self { lanes, admin, pid, former }
    }

    fn lane(&mut self) -> &mut Lane {
        &mut self.lanes.lanes[0]
    }

    /// Asks as a new session, and waits until its connection is being reset.
    async fn ask(&mut self) -> RawClient {
        let mut next = self.lane().client().await;
        next.query(&format!("INSERT INTO cut VALUES (1) RETURNING ({STATE}), pg_backend_pid()")).await;
        self.wait_for_reset().await;
        next
    }

    /// Waits until the connection is being reset; when that began.
    async fn wait_for_reset(&mut self) -> String {
        self.reset_began().await.expect("the connection is there")
    }

    /// The same; `None` if the connection is gone.
    async fn reset_began(&mut self) -> Option<String> {
        let began = format!(
            "SELECT CASE WHEN count(*) = 0 THEN 'gone' ELSE max(query_start) FILTER (WHERE query = 'DISCARD ALL' \
             AND state = 'active' AND wait_event_type = 'Lock')::text END FROM pg_stat_activity WHERE pid = {}",
            self.pid
        );
        let observer = &mut self.lane().observer;
        let runs = async || Some(observer.query_value(&began).await).filter(|began| !began.is_empty());
        Some(eventually("the connection is being reset", SOON, runs).await).filter(|began| began != "gone")
    }

    /// Cancels the reset at the server, as an administrator does, and waits until that has happened.
    async fn cancel_reset(&mut self) {
        assert!(self.try_cancel_reset().await, "the connection is there");
    }

    /// The same. False if the connection is gone.
    async fn try_cancel_reset(&mut self) -> bool {
        let Some(began) = self.reset_began().await else { return false };
        let cancel = format!("SELECT pg_cancel_backend({})", self.pid);
        self.admin.query(&cancel, &[]).await.expect("a superuser may");
        let is_the_same = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND query_start = '{began}' AND state = 'active'",
            self.pid
        );
        let observer = &mut self.lane().observer;
        let is_over = async || (observer.query_value(&is_the_same).await == "0").then_some(());
        eventually("the reset is cancelled", SOON, is_over).await;
        true
    }

    async fn let_go(&self) {
        self.admin.batch_execute("COMMIT").await.expect("the lock is held");
    }
}

/// A superuser's connection to the database of the lane.
async fn admin_of(lanes: &Lanes) -> Client {
    let url = crate::support::Login::Admin.url(lanes.primary.port(), &lanes.lanes[0].database);
    crate::support::connect(&url).await.expect("the server accepts connections")
}

/// Of the session that asked: what it saw, and the process that served it.
fn seen(answer: &[Message]) -> (String, String) {
    let row = answer.iter().find(|message| message.tag == b'D').unwrap_or_else(|| panic!("{answer:?}"));
    let [state, pid] = <[_; 2]>::try_from(row.columns()).expect("two columns").map(Option::unwrap_or_default);
    (state, pid)
}

#[tokio::test]
async fn a_connection_whose_process_is_killed_in_its_reset_serves_nobody() {
    let mut held = Held::start(&LEFT).await;
    let mut next = held.ask().await;
    let killed = format!("SELECT pg_terminate_backend({})", held.pid);
    held.admin.query(&killed, &[]).await.expect("a superuser may");
    // Its end waits for the lock as well.
    held.let_go().await;
    let (state, pid) = seen(&next.read_until_ready().await);
    assert_eq!(state, NO_STATE);
    assert_ne!(pid, held.pid, "another connection, which nobody has had");
    assert_eq!(held.lane().rows().await, 1, "its statement ran once");
    drop(next);
    held.lane().check_next(&"afterwards").await;
}

/// The same without a word of the server's.
#[tokio::test]
async fn a_connection_that_is_cut_in_its_reset_serves_nobody() {
    let mut held = Held::start(&LEFT).await;
    let mut next = held.ask().await;
    held.lane().to_server.cut();
    let (state, pid) = seen(&next.read_until_ready().await);
    assert_eq!(state, NO_STATE);
    assert_ne!(pid, held.pid, "another connection, which nobody has had");
    held.let_go().await;
    assert_eq!(held.lane().rows().await, 1, "its statement ran once");
    drop(next);
    held.lane().check_next(&"afterwards").await;
}

/// Neither who had the connection before nor who is to have it reaches it: the reset goes on.
#[tokio::test]
async fn a_cancel_that_comes_during_a_reset_hits_nobody() {
    let mut held = Held::start(&LEFT).await;
    let port = held.lane().proxy.port();
    let mut next = held.ask().await;
    let (process, secret) = held.former.key().clone();
    RawClient::cancel(port, process, &secret).await;
    held.wait_for_reset().await;
    // Of the one who waits for it, it ends the wait, once the reset is over.
    let (process, secret) = next.key().clone();
    RawClient::cancel(port, process, &secret).await;
    held.wait_for_reset().await;
    let mut third = held.lane().client().await;
    third.query(&format!("SELECT ({STATE}), pg_backend_pid()")).await;
    held.let_go().await;
    let answer = next.read_until_ready().await;
    assert_eq!(error_code(&answer).as_deref(), Some(CANCELED), "{answer:?}");
    let (state, pid) = seen(&third.read_until_ready().await);
    assert_eq!((state.as_str(), pid.as_str()), (NO_STATE, held.pid.as_str()), "it was reset, and not hit");
    assert_eq!(held.lane().rows().await, 0, "what was cancelled has not begun");
    assert_eq!(held.former.query_value("SELECT 1").await, "1");
    assert_eq!(next.query_value("SELECT 2").await, "2");
}

/// Somebody else cancels the reset, at the server: it is tried again, three times in all, and never taken for done.
#[tokio::test]
async fn a_reset_that_the_server_has_cancelled_is_tried_again() {
    for _ in 0..5 {
        if reset_is_cancelled().await {
            return;
        }
    }
    panic!("each time it was somebody else's reset that was cancelled");
}

/// False if the reset of the catalog's reader was, which wants the connection, too, a while after it was left, and closes it.
async fn reset_is_cancelled() -> bool {
    let mut held = Held::start(&LEFT_WITHOUT_SETTINGS).await;
    let mut next = held.ask().await;
    for _ in 0..3 {
        if !held.try_cancel_reset().await {
            return false;
        }
    }
    let answer = next.read_until_ready().await;
    if error_code(&answer).is_none() {
        let (state, pid) = seen(&answer);
        assert_eq!(state, NO_STATE);
        assert_ne!(pid, held.pid, "another connection, which nobody has had");
        return false;
    }
    assert_eq!(error_code(&answer).as_deref(), Some(CANCELED), "{answer:?}");
    // The next one finds it as it was: to be reset.
    let mut third = held.lane().client().await;
    third.query(&format!("INSERT INTO cut VALUES (1) RETURNING ({STATE}), pg_backend_pid()")).await;
    if !held.try_cancel_reset().await || held.reset_began().await.is_none() {
        return false;
    }
    held.let_go().await;
    let (state, pid) = seen(&third.read_until_ready().await);
    assert_eq!((state.as_str(), pid.as_str()), (NO_STATE, held.pid.as_str()));
    assert_eq!(held.lane().rows().await, 1, "of the second one only");
    assert_eq!(next.query_value("SELECT 2").await, "2");
    drop((next, third));
    held.lane().check_next(&"afterwards").await;
    true
}

/// One that has settings of another's on it is closed.
#[tokio::test]
async fn a_connection_with_settings_whose_reset_is_cancelled_serves_nobody() {
    let mut held = Held::start(&LEFT).await;
    let mut next = held.ask().await;
    held.cancel_reset().await;
    let (state, pid) = seen(&next.read_until_ready().await);
    assert_eq!(state, NO_STATE);
    assert_ne!(pid, held.pid, "another connection, which nobody has had");
    held.let_go().await;
    assert_eq!(held.lane().rows().await, 1, "its statement ran once");
    drop(next);
    held.lane().check_next(&"afterwards").await;
}
