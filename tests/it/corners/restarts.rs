//! The server restarts, or ends single backends, while sessions stand in every phase.

use std::time::Duration;

use super::talk::Pair;
use crate::support::{Message, RawClient, Stop, eventually};

const SOON: Duration = Duration::from_secs(10);

/// What a server says that goes down, or what is said in its place if it says nothing.
const CODES: [&str; 3] = ["57P01", "57P02", "08006"];

async fn site() -> Pair {
    let change = |config: crate::support::ProxyConfig| {
        config.pool("primary", &["primary"], 20).set("pools.primary", "wait_timeout", "20s")
    };
    Pair::configured(change).await
}

/// One session in each phase.
struct Phases {
    idle: RawClient,
    begun: RawClient,
    in_transaction: RawClient,
    failed: RawClient,
    running: RawClient,
    pipeline: RawClient,
    flushed: RawClient,
    copying_in: RawClient,
    copying_out: RawClient,
    pinned: RawClient,
}

impl Phases {
    async fn start(site: &Pair) -> Self {
        let mut phases = Self {
            idle: site.client().await,
            begun: site.client().await,
            in_transaction: site.client().await,
            failed: site.client().await,
            running: site.client().await,
            pipeline: site.client().await,
            flushed: site.client().await,
            copying_in: site.client().await,
            copying_out: site.client().await,
            pinned: site.client().await,
        };
        phases.idle.parse("s", "SELECT count(*) FROM t").sync().flush().await;
        phases.idle.read_until_ready().await;
        phases.idle.ask("SET work_mem = '1MB'").await;
        phases.begun.ask("BEGIN").await;
        phases.in_transaction.ask("BEGIN; INSERT INTO t VALUES (100)").await;
        phases.failed.ask("BEGIN; INSERT INTO t VALUES (101); SELECT 1/0").await;
        let pipeline = &mut phases.pipeline;
        pipeline.parse("", "INSERT INTO t SELECT 102, pg_sleep(60)").bind("", "", &[]).execute("", 0).sync();
        pipeline.parse("", "SELECT 'second'").bind("", "", &[]).execute("", 0).sync();
        pipeline.message(b'Q', b"SELECT 'third'\0").flush().await;
        let flushed = &mut phases.flushed;
        flushed.parse("", "INSERT INTO t VALUES (103)").bind("", "", &[]).execute("", 0).flush_message();
        flushed.flush().await;
        while flushed.read_message().await.tag != b'C' {}
        phases.copying_in.query("COPY t FROM STDIN").await;
        assert_eq!(phases.copying_in.read_message().await.tag, b'G');
        phases.copying_in.message(b'd', b"104\tx\n").flush().await;
        phases.copying_out.query("COPY (SELECT repeat('x', 9000), pg_sleep(n / 3 * 60) FROM generate_series(1, 3) n) TO STDOUT").await;
        while phases.copying_out.read_message().await.tag != b'd' {}
        phases.pinned.ask("CREATE TEMP TABLE mine (a int)").await;
        phases.running.query("INSERT INTO t SELECT 105, pg_sleep(60)").await;
        let sleeping =
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'INSERT%pg_sleep%' AND state = 'active'";
        eventually("the statements run", SOON, async || {
            (site.primary.value(sleeping).await == "2").then_some(())
        })
        .await;
        phases
    }

    async fn check(mut self, what: &str) {
        // Who had nothing on the server notices nothing, and still has its state.
        let idle = &mut self.idle;
        idle.bind("", "s", &[]).execute("", 0).sync().flush().await;
        assert_eq!(RawClient::tags(&idle.read_until_ready().await), "2DCZ", "{what}: idle");
        assert_eq!(idle.query_value("SHOW work_mem").await, "1MB", "{what}: idle");
        assert_eq!(self.begun.query_value("SELECT 'in a transaction'").await, "in a transaction");
        assert_eq!(self.begun.ask("COMMIT").await[0].body, &b"COMMIT\0"[..], "{what}: begun");

        for (client, phase) in [(&mut self.in_transaction, "in a transaction"), (&mut self.failed, "failed")]
        {
            let answer = client.ask("SELECT 1").await;
            is_the_servers_end(&answer, "ERROR", &format!("{what}: {phase}"));
            assert_eq!(answer.last().expect("ready").body[0], b'E', "{what}: {phase}");
            assert_eq!(client.ask("SELECT 1").await[0].field(b'C').as_deref(), Some("25P02"));
            assert_eq!(client.ask("COMMIT").await[0].body, &b"ROLLBACK\0"[..], "{what}: {phase}");
        }
        let answer = self.pipeline.read_until_ready().await;
        is_the_servers_end(&answer, "ERROR", &format!("{what}: pipeline"));
        for part in ["second", "third"] {
            let answer = self.pipeline.read_until_ready().await;
            let row = answer.iter().find(|message| message.tag == b'D').expect("a row");
            assert_eq!(row.columns(), [Some(part.to_owned())], "{what}: pipeline");
        }
        for (client, phase) in [
            (&mut self.running, "a statement runs"),
            (&mut self.copying_in, "COPY in"),
            (&mut self.copying_out, "COPY out"),
        ] {
            let answer = client.read_until_ready().await;
            is_the_servers_end(&answer, "ERROR", &format!("{what}: {phase}"));
            assert_eq!(answer.last().expect("ready").body, &b"I"[..], "{what}: {phase}");
        }
        // The rest of the COPY is dropped.
        self.copying_in.message(b'd', b"104\ty\n").message(b'c', b"");
        for client in [
            &mut self.in_transaction,
            &mut self.pipeline,
            &mut self.running,
            &mut self.copying_in,
            &mut self.copying_out,
        ] {
            assert_eq!(client.query_value("SELECT count(*) FROM t").await, "0", "{what}: nothing stays");
        }
        // Its table is lost, or what it has not ended yet: it must not go on as if it were there.
        for (client, phase) in [(&mut self.pinned, "pinned"), (&mut self.flushed, "between Flush and Sync")] {
            let mut goodbye = Vec::new();
            while let Some(message) = client.try_read_message().await {
                goodbye.push(message);
            }
            is_the_servers_end(&goodbye, "FATAL", &format!("{what}: {phase}"));
        }
    }
}

/// Among the answer is one error, which says that the server has ended the connection. One that shuts down at once
/// says so in a warning, and no more.
fn is_the_servers_end(answer: &[Message], severity: &str, what: &str) {
    let errors: Vec<_> = answer.iter().filter(|message| message.tag == b'E').collect();
    let [error] = errors.as_slice() else { panic!("{what}: {answer:?}") };
    let code = error.field(b'C').unwrap_or_default();
    assert!(CODES.contains(&code.as_str()), "{what}: {error:?}");
    assert_eq!(error.field(b'S').as_deref(), Some(severity), "{what}: {error:?}");
}

#[tokio::test]
async fn a_restart_is_told_to_those_who_lose_something_only() {
    let site = site().await;
    for how in [Stop::Fast, Stop::Immediate] {
        let phases = Phases::start(&site).await;
        site.primary.stop(how);
        site.primary.boot();
        phases.check(&format!("{how:?}")).await;
        site.calm().await;
    }
    site.finish().await;
}

#[tokio::test]
async fn ended_backends_are_told_to_those_who_lose_something_only() {
    let site = site().await;
    let phases = Phases::start(&site).await;
    let all =
        "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE usename = 'app_trust'";
    site.primary.query(all).await;
    phases.check("pg_terminate_backend").await;
    site.finish().await;
}
