//! Job libraries with a job database of their own, and one URL for everything: unchanged, they install their tables, add
//! jobs alone, in transactions and by the clock, are woken for them, and take away what is done. Rows of the application
//! and those of the jobs are where they belong.

use std::{process::Command, time::Duration};

use super::{drivers_folder, node, python, run, scripts_folder, tell};
use crate::support::{Login, Postgres, Proxy, ProxyConfig, Role, eventually};

/// Libraries of one language, and which of their tables have rows, and where.
struct Libraries {
    program: fn() -> Command,
    script: &'static str,
    presets: &'static [&'static str],
    /// All of their tables, with the schema: a regular expression.
    tables: &'static str,
    /// In the job database, once jobs are done.
    done: &'static [&'static str],
    /// In the job database, once all is taken away that can be.
    cleaned: &'static [&'static str],
    /// On the primary, from beginning to end: none with jobs.
    primary: &'static [&'static str],
}

const NODE: Libraries = Libraries {
    program: node,
    script: "jobs.mjs",
    presets: &["pg_boss", "graphile_worker"],
    tables: r"^(pgboss|graphile_worker)\.",
    done: &[
        "graphile_worker._private_job_queues",
        "graphile_worker._private_tasks",
        "graphile_worker.migrations",
        "pgboss.job",
        "pgboss.queue",
        "pgboss.version",
    ],
    cleaned: &[
        "graphile_worker._private_known_crontabs",
        "graphile_worker.migrations",
        "pgboss.queue",
        "pgboss.version",
    ],
    primary: &["graphile_worker._private_job_queues", "graphile_worker._private_tasks", "pgboss.queue"],
};

const PROCRASTINATE: Libraries = Libraries {
    program: python,
    script: "jobs.py",
    presets: &["procrastinate"],
    tables: r"^public\.procrastinate_",
    done: &["public.procrastinate_events", "public.procrastinate_jobs"],
    cleaned: &["public.procrastinate_periodic_defers"],
    primary: &[],
};

const OBAN: Libraries = Libraries {
    program: oban,
    script: "oban.py",
    presets: &["oban"],
    tables: r"^public\.oban_",
    done: &["public.oban_jobs"],
    cleaned: &[],
    primary: &[],
};

/// The Python for which `scripts/setup.sh` has installed oban.
fn oban() -> Command {
    let mut command = Command::new(drivers_folder().join("oban/bin/python"));
    command.arg("-I");
    command
}

/// Where they live.
struct Home {
    libraries: &'static Libraries,
    // Dropped before its servers.
    proxy: Proxy,
    primary: Postgres,
    jobs: Postgres,
}

impl Home {
    /// Two servers with nothing but a table of the application's, and Bulkhead.
    async fn of(libraries: &'static Libraries) -> Self {
        let primary = Postgres::start(Role::Primary);
        let jobs = Postgres::start(Role::Jobs);
        primary.query("CREATE TABLE items (name text); ALTER TABLE items OWNER TO app").await;
        // The numbers of types differ from those of the primary.
        jobs.query("CREATE TYPE first AS ENUM ('a'); CREATE TYPE second AS ENUM ('b')").await;
        for server in [&primary, &jobs] {
            server.query("GRANT CREATE ON DATABASE app TO app; GRANT ALL ON SCHEMA public TO app").await;
        }
        let config = ProxyConfig::primary_only(&primary)
            .set("servers.jobs", "url", jobs.url(Login::App))
            .pool("jobs", &["jobs"], 20)
            .set("jobs", "presets", libraries.presets.to_vec())
            .set("jobs", "outbox", true)
            .set("jobs", "outbox_poll", "100ms");
        let proxy = Proxy::start(&config.to_toml());
        Self { libraries, proxy, primary, jobs }
    }

    /// Has their script do this.
    fn say(&self, what: &str) {
        let mut command = (self.libraries.program)();
        let text =
            run(&self.proxy.url(), command.arg(scripts_folder().join(self.libraries.script)).arg(what));
        assert!(text.lines().any(|line| line == "all ok"), "{what} did not get to its end:\n{text}");
    }

    /// Their tables with rows are these, once everything was moved.
    async fn has_rows_in(&self, jobs: &[&str]) {
        eventually("jobs are in the job database only", Duration::from_secs(10), async || {
            (self.filled(&self.primary).await == self.libraries.primary).then_some(())
        })
        .await;
        assert_eq!(self.filled(&self.jobs).await, jobs);
    }

    /// Their tables on a server in which there are rows.
    async fn filled(&self, server: &Postgres) -> Vec<String> {
        let names = format!(
            "SELECT nspname || '.' || relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace \
             WHERE relkind IN ('r', 'p') AND NOT relispartition AND nspname || '.' || relname ~ '{}' ORDER BY 1",
            self.libraries.tables
        );
        let mut filled = Vec::new();
        for name in server.query(&names).await.into_iter().flatten().flatten() {
            if server.value(&format!("SELECT EXISTS (SELECT FROM {name})")).await == "t" {
                filled.push(name);
            }
        }
        filled
    }

    /// What the log says that an operator is to look at.
    fn warnings(&self) -> Vec<String> {
        let log = self.proxy.log();
        let warns = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ");
        log.lines().filter(warns).map(str::to_owned).collect()
    }
}

/// Everything that these libraries do.
async fn live(libraries: &'static Libraries) {
    let home = Home::of(libraries).await;
    home.say("install");
    let init = Command::new(env!("CARGO_BIN_EXE_bulkhead"))
        .args(["--config", home.proxy.config_path().to_str().expect("text"), "jobs", "init"])
        .output()
        .expect("it runs");
    assert!(init.status.success(), "{init:?}");
    home.proxy.wait_for_metric("bulkhead_outbox_ready", 1.0).await;
    // Until now it has warned that there is no outbox, and of types that differ.
    let before = home.warnings();
    home.say("run");
    home.has_rows_in(libraries.done).await;
    home.say("maintain");
    home.has_rows_in(libraries.cleaned).await;

    let none: Vec<Vec<Option<String>>> = Vec::new();
    assert_eq!(home.primary.query("SELECT row, error FROM bulkhead.refused").await, none);
    assert_eq!(
        home.primary.value("SELECT count(*) FROM items WHERE name LIKE '%3'").await,
        "0",
        "rolled back"
    );
    assert_ne!(home.primary.value("SELECT count(*) FROM items").await, "0");
    assert_eq!(home.jobs.value("SELECT count(*) FROM pg_class WHERE relname = 'items'").await, "0");
    assert_eq!(home.warnings(), before);
}

#[tokio::test]
async fn job_libraries_of_node_have_a_database_of_their_own() {
    live(&NODE).await;
}

#[tokio::test]
async fn a_job_library_of_python_has_a_database_of_its_own() {
    live(&PROCRASTINATE).await;
}

/// It needs a newer Python than some systems have.
#[tokio::test]
async fn oban_of_python_has_a_database_of_its_own() {
    if drivers_folder().join("oban").exists() {
        live(&OBAN).await;
    } else {
        tell("left out: `scripts/setup.sh` has found no Python 3.12 or later to install oban for");
    }
}
