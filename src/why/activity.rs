//! A server's own word on its connections: what they run, in which state, and who waits for whom.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout, timeout_at};

use crate::{
    backend::{Backend, Identity, connect_error::ConnectError, search::connect},
    pool::ServerPool,
    sql,
    threads::Home,
    wire::message,
};

/// Connecting, the question and its answer take no longer than this.
const LIMIT: Duration = Duration::from_secs(2);

/// The server's end of the connection is waited for so long.
const GOODBYE: Duration = Duration::from_millis(500);

/// An answer takes no more bytes than this.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// The name of the connection in `pg_stat_activity`.
const APPLICATION_NAME: &str = "bulkhead why";

/// The server ends the question by itself, should nobody wait for the answer any more.
const BOUND: &str = "SET statement_timeout = '2s';";

/// Asks what connections of clients do that are not idle, who waits for a lock, and who has it. Of connections of other roles
/// a role may not see more than that they are there, unless it may read all statistics; then who waits for whom is asked
/// of each of them. Times are in milliseconds.
pub(crate) const QUESTION: &str = "\
WITH blocked AS MATERIALIZED (\
 SELECT pid, pg_catalog.pg_blocking_pids(pid) AS blockers FROM pg_catalog.pg_stat_activity \
 WHERE wait_event_type OPERATOR(pg_catalog.=) 'Lock'::pg_catalog.text OR (backend_type IS NULL AND datid IS NOT NULL) \
 LIMIT 300) \
SELECT a.pid, a.usename, a.application_name, pg_catalog.host(a.client_addr), a.state, \
 (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) a.state_change) \
 OPERATOR(pg_catalog.*) 1000::pg_catalog.float8)::pg_catalog.int8, \
 (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) a.query_start) \
 OPERATOR(pg_catalog.*) 1000::pg_catalog.float8)::pg_catalog.int8, \
 pg_catalog.\"left\"(a.query, 1000), pg_catalog.array_to_string(b.blockers, ',') \
FROM pg_catalog.pg_stat_activity AS a LEFT JOIN blocked AS b ON b.pid OPERATOR(pg_catalog.=) a.pid \
WHERE a.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid() AND (\
 (a.backend_type OPERATOR(pg_catalog.=) 'client backend'::pg_catalog.text \
 AND a.state OPERATOR(pg_catalog.<>) 'idle'::pg_catalog.text) OR b.pid IS NOT NULL \
 OR a.pid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT pg_catalog.unnest(blockers) FROM blocked))) \
ORDER BY b.pid IS NULL, a.pid LIMIT 1000";

/// A server's process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) user: String,
    pub(super) application_name: String,
    pub(super) address: String,
    /// Empty if the server does not tell.
    pub(super) state: String,
    pub(super) state_for: Option<Duration>,
    pub(super) query_for: Option<Duration>,
    /// The text that it runs or has run last, without literals.
    pub(super) text: Option<String>,
    /// Processes that it waits for.
    pub(super) blockers: Vec<i32>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Silence {
    /// The server's bound leaves no place for the question.
    NoPlace,
    /// No connection came about.
    Unreachable(ConnectError),
    /// The answer was none.
    Failed(String),
    /// No answer came in time.
    TimedOut,
}

/// Asks the server of a pool, as this identity, on a connection of its own.
///
/// Cancel safe: the connection is closed.
pub(super) async fn ask(member: &ServerPool, identity: &Arc<Identity>) -> Result<Vec<Process>, Silence> {
    // It is held as long as the connection is.
    let _place = member.take_question_place().ok_or(Silence::NoPlace)?;
    let until = Instant::now() + LIMIT;
    let credentials = (*identity.credentials()).clone();
    let own = Identity::new(identity.database.clone(), identity.user.clone(), credentials);
    let name = ("application_name".to_owned(), APPLICATION_NAME.to_owned());
    let own = Arc::new(own.with_startup(vec![name]));
    let server = member.server();
    let connecting = timeout_at(until, connect(&server, &own, Home(0), LIMIT)).await;
    let backend = connecting.map_err(|_| Silence::TimedOut)?.map_err(|error| match error {
        ConnectError::TimedOut(_) => Silence::TimedOut,
        error => Silence::Unreachable(error),
    })?;
    let mut asking = Asking(backend);
    let question = format!("{BOUND}{QUESTION}");
    let answered = timeout_at(until, asking.0.ask_within(&question, ANSWER_BYTES_MAX)).await;
    let answer =
        answered.map_err(|_| Silence::TimedOut)?.map_err(|broken| Silence::Failed(broken.to_string()))?;
    asking.leave().await;
    match answer.error {
        Some(error) => Err(Silence::Failed(error.to_string())),
        None => Ok(answer.rows.into_iter().map(read).collect()),
    }
}

/// A connection that says goodbye when it is dropped.
struct Asking(Box<Backend>);

impl Asking {
    /// Says goodbye, and waits for the server to close: then its place there is free.
    async fn leave(mut self) {
        let mut nothing = Vec::new();
        if self.0.socket.send_now(&message::TERMINATE).is_ok() {
            let closed = async { while self.0.read_more(&mut nothing).await.is_ok() {} };
            let _ = timeout(GOODBYE, closed).await;
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        // It is closed all the same.
        let _ = self.0.socket.send_now(&message::TERMINATE);
    }
}

/// A row of the answer.
fn read(row: Vec<Option<String>>) -> Process {
    let mut columns = row.into_iter();
    let mut text = || columns.next().flatten();
    let time =
        |text: Option<String>| text?.parse::<i64>().ok().map(|ms| Duration::from_millis(ms.max(0) as u64));
    Process {
        pid: text().and_then(|pid| pid.parse().ok()).unwrap_or_default(),
        user: text().unwrap_or_default(),
        application_name: text().unwrap_or_default(),
        address: text().unwrap_or_default(),
        state: text().unwrap_or_default(),
        state_for: time(text()),
        query_for: time(text()),
        text: text().map(|text| sql::without_literals(&text)).filter(|text| !text.is_empty()),
        blockers: text().unwrap_or_default().split(',').filter_map(|pid| pid.parse().ok()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_whatever_is_missing() {
        let row = |columns: [Option<&str>; 9]| columns.map(|column| column.map(ToOwned::to_owned)).into();
        let some = Some;
        let whole = read(row([
            some("12"),
            some("app"),
            some("web"),
            some("10.0.0.1"),
            some("active"),
            some("1500"),
            some("-3"),
            some("SELECT 'secret'"),
            some("3,4"),
        ]));
        assert_eq!(
            whole,
            Process {
                pid: 12,
                user: "app".to_owned(),
                application_name: "web".to_owned(),
                address: "10.0.0.1".to_owned(),
                state: "active".to_owned(),
                state_for: Some(Duration::from_millis(1500)),
                query_for: Some(Duration::ZERO),
                text: Some("SELECT ?".to_owned()),
                blockers: vec![3, 4],
            }
        );
        assert_eq!(read(row([None; 9])), Process::default());
        assert_eq!(read(Vec::new()), Process::default());
    }
}
