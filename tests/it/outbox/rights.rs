//! The least rights that a relay's user can do with: with them it does everything, and without any one of them it says
//! which.

use super::{LONG, Yard, bulkhead, enqueue};
use crate::support::{Postgres, Proxy, ProxyConfig, eventually, oban};

/// A right by what follows GRANT, and what is said where it is missing.
type Right = (&'static str, &'static str);

/// As README.md has them.
const ON_PRIMARY: [Right; 8] = [
    ("USAGE ON SCHEMA public", "permission denied for schema public"),
    ("SELECT ON SEQUENCE oban_jobs_id_seq", "permission denied for sequence oban_jobs_id_seq"),
    (
        "UPDATE ON oban_jobs",
        "lacks rights at server \\\"primary\\\": GRANT UPDATE ON public.oban_jobs TO mover",
    ),
    (
        "DELETE ON oban_jobs",
        "lacks rights at server \\\"primary\\\": GRANT DELETE ON public.oban_jobs TO mover",
    ),
    ("USAGE ON SCHEMA bulkhead", "permission denied for schema bulkhead"),
    ("SELECT ON bulkhead.outbox", "permission denied for table outbox"),
    ("UPDATE ON bulkhead.outbox", "at server \\\"primary\\\": GRANT UPDATE ON bulkhead.outbox TO mover"),
    ("INSERT ON bulkhead.refused", "at server \\\"primary\\\": GRANT INSERT ON bulkhead.refused TO mover"),
];

const IN_JOBS: [Right; 9] = [
    ("USAGE ON SCHEMA public", "permission denied for schema public"),
    ("SELECT ON SEQUENCE oban_jobs_id_seq", "permission denied for sequence oban_jobs_id_seq"),
    ("INSERT ON oban_jobs", "lacks rights at server \\\"jobs\\\": GRANT INSERT ON public.oban_jobs TO mover"),
    (
        "TEMPORARY ON DATABASE app",
        "lacks rights at server \\\"jobs\\\": GRANT TEMPORARY ON DATABASE app TO mover",
    ),
    ("USAGE ON SCHEMA bulkhead", "permission denied for schema bulkhead"),
    ("UPDATE ON bulkhead.outbox", "at server \\\"jobs\\\": GRANT UPDATE ON bulkhead.outbox TO mover"),
    ("SELECT ON bulkhead.relayed", "at server \\\"jobs\\\": GRANT SELECT ON bulkhead.relayed TO mover"),
    ("INSERT ON bulkhead.relayed", "at server \\\"jobs\\\": GRANT INSERT ON bulkhead.relayed TO mover"),
    ("DELETE ON bulkhead.relayed", "at server \\\"jobs\\\": GRANT DELETE ON bulkhead.relayed TO mover"),
];

/// What `jobs plan` reads, too.
const READS: &str = "SELECT ON oban_jobs";

/// A user of no rights, and nobody has any by default.
const MOVER: &str = "CREATE ROLE mover LOGIN PASSWORD 'secret'; REVOKE ALL ON SCHEMA public FROM PUBLIC; \
    REVOKE ALL ON DATABASE app FROM PUBLIC; GRANT CONNECT ON DATABASE app TO mover; \
    GRANT USAGE ON SCHEMA public TO mover; GRANT SELECT ON oban_jobs, oban_jobs_id_seq TO mover";

/// Both servers with Oban's tables, a user of few rights, and what `init` makes: planned by that user, and run by another.
async fn start() -> (Yard, ProxyConfig) {
    let yard = Yard::bare();
    let url = |port: u16| format!("postgres://mover:secret@127.0.0.1:{port}/app");
    let config = yard.config().set("servers.primary", "url", url(yard.to_primary.port())).set(
        "servers.jobs",
        "url",
        url(yard.to_jobs.port()),
    );
    for server in [&yard.primary, &yard.jobs] {
        oban::install(server).await;
        server.query(MOVER).await;
    }
    let (code, text) = bulkhead(&config, &["jobs", "init"]);
    assert!(code == Some(64) && text.contains("permission denied for database app"), "{text}");
    let (code, text) = bulkhead(&config, &["jobs", "plan"]);
    assert_eq!(code, Some(0), "{text}");
    for (side, server) in [("the primary", &yard.primary), ("the job database", &yard.jobs)] {
        let part = text.split("-- On ").find(|part| part.starts_with(side)).expect("a part for each side");
        server.query(part.split_once('\n').expect("more than its title").1).await;
    }
    // Only what is listed above, of what the plan grants.
    for (server, rights) in [(&yard.primary, ON_PRIMARY.as_slice()), (&yard.jobs, &IN_JOBS)] {
        server.query("REVOKE ALL ON ALL TABLES IN SCHEMA bulkhead FROM mover").await;
        server.query("GRANT SELECT ON bulkhead.outbox TO mover").await;
        for (right, _) in rights {
            server.query(&format!("GRANT {right} TO mover")).await;
        }
    }
    (yard, config)
}

/// Enqueues a job that comes, and one that is refused, and has the ledger forget.
async fn do_everything(yard: &Yard, config: &ProxyConfig) {
    yard.jobs.query("ALTER TABLE oban_jobs ADD CHECK (worker <> 'refused')").await;
    let proxy = yard.bulkhead(config).await;
    let client = yard.primary.admin().await;
    for worker in ["one", "refused", "other"] {
        enqueue(&client, worker).await;
    }
    yard.wait_until_empty().await;
    assert_eq!(
        yard.jobs.value("SELECT string_agg(worker, ' ' ORDER BY id) FROM oban_jobs").await,
        "one other"
    );
    assert_eq!(yard.primary.value("SELECT count(*) FROM bulkhead.refused").await, "1");
    yard.jobs.query("UPDATE bulkhead.relayed SET relayed_at = now() - interval '1 day'").await;
    eventually("the ledger has forgotten", LONG, async || {
        (yard.jobs.value("SELECT count(*) FROM bulkhead.relayed").await == "0").then_some(())
    })
    .await;
    drop(proxy);
}

/// Takes one right away: no job may be enqueued, and it is said why. Then gives it back.
async fn without(server: &Postgres, config: &ProxyConfig, (right, said): Right) {
    server.query(&format!("REVOKE {right} FROM mover")).await;
    let proxy = Proxy::start(&config.to_toml());
    eventually(&format!("without {right} it is said: {said}"), LONG, async || {
        proxy.log().contains(said).then_some(())
    })
    .await;
    server.query(&format!("GRANT {right} TO mover")).await;
    proxy.wait_for_metric("bulkhead_outbox_ready", 1.0).await;
}

#[tokio::test]
async fn a_user_with_the_least_rights_moves_jobs_and_is_told_which_one_it_lacks() {
    let (yard, config) = start().await;
    do_everything(&yard, &config).await;
    let on_jobs = "GRANT SELECT ON public.oban_jobs TO mover";
    for (server, rights, reads) in [
        (&yard.primary, ON_PRIMARY.as_slice(), "permission denied for table oban_jobs"),
        (&yard.jobs, &IN_JOBS, on_jobs),
    ] {
        for right in rights {
            without(server, &config, *right).await;
        }
        without(server, &config, (READS, reads)).await;
    }
}
