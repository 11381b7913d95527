//! A COMMIT on both servers of which one takes long: it is waited for as any COMMIT of a client, and a cancel reaches it.

use super::{
    Yard,
    starters::{MADE, bare_config},
};
use crate::support::{Message, Postgres, Proxy, RawClient, error_of, short};

/// Longer than what Bulkhead waits for an answer to a question of its own.
const WAITS_LONG: &str = "wait_event = 'SyncRep' AND now() - query_start > '6s'";

const LOCKED: &str = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7";

/// The COMMIT is the job database's, and the primary's follows it; or the other way round.
#[derive(Clone, Copy)]
enum Slow {
    Primary,
    Jobs,
}

impl Slow {
    fn server(self, yard: &Yard) -> &Postgres {
        match self {
            Self::Primary => &yard.primary,
            Self::Jobs => &yard.jobs,
        }
    }
}

async fn wait_for_standby(server: &Postgres, name: &str) {
    server.query(&format!("ALTER SYSTEM SET synchronous_standby_names = '{name}'")).await;
    server.query("SELECT pg_reload_conf()").await;
}

/// Begins a COMMIT on both of which one server waits for a standby that is not there, as the second one of both if it is the
/// primary's, and as the first one if it is the job database's; and lets that take long.
async fn commit(yard: &Yard, proxy: &Proxy, slow: Slow) -> RawClient {
    yard.primary.query("CREATE TABLE changed (n int); GRANT ALL ON changed TO app").await;
    let server = slow.server(yard);
    wait_for_standby(server, "nobody").await;
    let mut client = RawClient::app(proxy.port()).await;
    let last = match slow {
        Slow::Primary => "SELECT 1",
        Slow::Jobs => "INSERT INTO changed VALUES (1)",
    };
    for sql in ["BEGIN", "SELECT pg_advisory_xact_lock(7)", "CREATE TABLE oban_jobs (n int)", last] {
        assert_eq!(error_of(&client.ask(sql).await), None, "{sql}");
    }
    client.query("COMMIT").await;
    server.wait_for_app_backends(WAITS_LONG, 1).await;
    client
}

/// The COMMIT has been told as done, on both, and nothing of it is left.
async fn expect_done(yard: &Yard, proxy: &Proxy, answer: &[Message]) {
    assert_eq!((short(answer), error_of(answer)), ("COMMIT I".to_owned(), None));
    for server in [&yard.primary, &yard.jobs] {
        assert_eq!([server.value(MADE).await, server.value(LOCKED).await], ["1", "0"]);
        server.wait_for_app_backends("state LIKE 'idle in %'", 0).await;
    }
    let mut next = RawClient::app(proxy.port()).await;
    assert_eq!(short(&next.ask("SELECT count(*) FROM oban_jobs").await), "0 I");
}

#[tokio::test]
async fn a_commit_that_takes_long_on_either_server_is_waited_for() {
    for slow in [Slow::Primary, Slow::Jobs] {
        let (yard, config) = bare_config().await;
        let proxy = Proxy::start(&config.to_toml());
        let mut client = commit(&yard, &proxy, slow).await;
        wait_for_standby(slow.server(&yard), "").await;
        let answer = client.read_until_ready().await;
        assert!(answer.iter().all(|message| message.tag != b'N'), "{answer:?}");
        expect_done(&yard, &proxy, &answer).await;
    }
}

/// As on a server alone: it has committed there, and the client is warned.
#[tokio::test]
async fn a_cancel_ends_the_wait_of_a_commit_for_a_standby_of_either_server() {
    for slow in [Slow::Primary, Slow::Jobs] {
        let (yard, config) = bare_config().await;
        let proxy = Proxy::start(&config.to_toml());
        let mut client = commit(&yard, &proxy, slow).await;
        let (pid, secret) = client.key().clone();
        RawClient::cancel(proxy.port(), pid, &secret).await;
        let answer = client.read_until_ready().await;
        let warnings: Vec<_> = answer.iter().filter(|message| message.tag == b'N').collect();
        let [warning] = warnings.as_slice() else { panic!("one warning, not {warnings:?}") };
        assert_eq!(warning.field(b'S').as_deref(), Some("WARNING"));
        let text = warning.field(b'M').unwrap_or_default();
        assert!(text.contains("canceling wait for synchronous replication"), "{text}");
        expect_done(&yard, &proxy, &answer).await;
        wait_for_standby(slow.server(&yard), "").await;
    }
}
