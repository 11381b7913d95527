//! Jobs that are written on the primary and moved to a job database on another server: exactly once, whatever fails.

mod carried;
mod catalogs_anew;
mod commands;
mod commits;
mod crashes;
mod ends;
pub(crate) mod exactly_once;
mod faults;
mod functions;
mod hostile;
mod implicit;
mod keyed;
mod leaders;
mod libraries;
mod migrations;
mod moving;
mod names;
mod one_sided;
mod queues;
mod rights;
mod rows;
mod sessions;
mod starters;
mod undo;
mod upgrades;
mod windows;

use std::{collections::BTreeMap, fs, process::Command, time::Duration};

use tokio_postgres::Client;

use crate::support::{Login, Postgres, Proxy, ProxyConfig, Relay, Role, Scratch, eventually, oban};

/// Long enough for a relay to connect again after several failures.
const LONG: Duration = Duration::from_secs(30);

/// Notes every job that comes to the job database, also those that are gone again, and also twice.
const ARRIVALS: &str = "
    SET ROLE app;
    CREATE TABLE arrivals (id bigint NOT NULL, worker text NOT NULL, args jsonb NOT NULL);
    CREATE FUNCTION note_arrival() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO arrivals VALUES (NEW.id, NEW.worker, NEW.args);
        RETURN NULL;
    END $$;
    CREATE TRIGGER note_arrival AFTER INSERT ON oban_jobs FOR EACH ROW EXECUTE FUNCTION note_arrival();
    RESET ROLE;
";

/// How jobs of a library are added, and where they are.
struct Library {
    preset: &'static str,
    table: &'static str,
    /// Where they wait on the primary.
    waits_in: &'static str,
    /// Adds jobs whose workers have the names of `$1`.
    add: &'static str,
}

const OBAN: Library = Library {
    preset: "oban",
    table: "oban_jobs",
    waits_in: "oban_jobs",
    add: "INSERT INTO oban_jobs (worker) SELECT unnest($1::text[])",
};

/// Each job names a task and a queue that are new.
const GRAPHILE: Library = Library {
    preset: "graphile_worker",
    table: "graphile_worker._private_jobs",
    waits_in: "graphile_worker._private_jobs",
    add: "SELECT graphile_worker.add_job(worker, queue_name => 'queue of ' || worker) FROM unnest($1::text[]) AS worker",
};

/// Each job has a key of its own, in one of the three modes.
const KEYED: Library = Library {
    waits_in: "bulkhead.calls_of_graphile_worker",
    add: "SELECT graphile_worker.add_job(worker, job_key => worker, \
        job_key_mode => (ARRAY['replace', 'preserve_run_at', 'unsafe_dedupe'])[1 + abs(hashtext(worker) % 3)]) \
        FROM unnest($1::text[]) AS worker",
    ..GRAPHILE
};

/// A primary and a job database, each behind a network that can be cut, with a library's tables on both.
struct Yard {
    library: Library,
    primary: Postgres,
    jobs: Postgres,
    to_primary: Relay,
    to_jobs: Relay,
}

impl Yard {
    /// With the outbox installed.
    async fn start() -> Self {
        let yard = Self::bare();
        oban::install(&yard.primary).await;
        oban::install(&yard.jobs).await;
        yard.jobs.query(ARRIVALS).await;
        let (code, text) = bulkhead(&yard.config(), &["jobs", "init"]);
        assert_eq!(code, Some(0), "{text}");
        yard
    }

    /// Two servers, and nothing there.
    fn bare() -> Self {
        let primary = Postgres::start(Role::Primary);
        let jobs = Postgres::start(Role::Jobs);
        let (to_primary, to_jobs) = (Relay::start(primary.port()), Relay::start(jobs.port()));
        Self { library: OBAN, primary, jobs, to_primary, to_jobs }
    }

    /// An outbox that looks often.
    fn config(&self) -> ProxyConfig {
        ProxyConfig::primary_only(&self.primary)
            .set("servers.primary", "url", Login::App.url(self.to_primary.port(), "app"))
            .set("servers.jobs", "url", Login::App.url(self.to_jobs.port(), "app"))
            .pool("jobs", &["jobs"], 10)
            .set("jobs", "presets", vec![self.library.preset])
            .set("jobs", "outbox", true)
            .set("jobs", "outbox_poll", "20ms")
    }

    /// Bulkhead, once it moves jobs.
    async fn bulkhead(&self, config: &ProxyConfig) -> Proxy {
        let proxy = Proxy::start(&config.to_toml());
        proxy.wait_for_metric("bulkhead_outbox_ready", 1.0).await;
        self.wait_for_leader().await;
        proxy
    }

    /// Waits until somebody moves jobs.
    async fn wait_for_leader(&self) {
        let locked = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted";
        eventually("somebody has the relay's lock", LONG, async || {
            (self.jobs.value(locked).await == "1").then_some(())
        })
        .await;
    }

    /// How many jobs are on the primary.
    async fn waiting(&self) -> String {
        self.primary.value(&format!("SELECT count(*) FROM {}", self.library.waits_in)).await
    }

    /// Waits until nothing is left on the primary.
    async fn wait_until_empty(&self) {
        eventually("everything was moved", LONG, async || (self.waiting().await == "0").then_some(())).await;
    }

    /// How often each job has come, by its worker's name.
    async fn arrivals(&self) -> BTreeMap<String, u64> {
        let rows = self.jobs.query("SELECT worker, count(*) FROM arrivals GROUP BY worker").await;
        let pair =
            |row: Vec<Option<String>>| Some((row.first()?.clone()?, row.get(1)?.clone()?.parse().ok()?));
        rows.into_iter().filter_map(pair).collect()
    }

    /// Wakes the relay as another instance does: for tests in which it does not look by itself.
    async fn wake(&self) {
        self.jobs.query("NOTIFY bulkhead_outbox").await;
    }
}

/// Writes a job whose worker has this name; its number.
async fn enqueue(client: &Client, worker: &str) -> i64 {
    let sql = "INSERT INTO oban_jobs (worker) VALUES ($1) RETURNING id";
    client.query_one(sql, &[&worker]).await.expect("a job can be written").get(0)
}

/// Exit code and output of a command with a configuration.
pub(crate) fn bulkhead(config: &ProxyConfig, arguments: &[&str]) -> (Option<i32>, String) {
    let folder = Scratch::new();
    let file = folder.path().join("bulkhead.toml");
    let text = config.to_toml().replace("{listen}", "127.0.0.1:6432").replace("{http}", "127.0.0.1:9930");
    fs::write(&file, text).expect("a writable folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
    let output = command.arg("--config").arg(&file).args(arguments).output().expect("it runs");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(!text.contains("secret"), "{text}");
    (output.status.code(), text)
}
