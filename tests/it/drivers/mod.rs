//! Drivers and tools of other languages, through the proxy to a whole cluster with 10 backends for each pool. Their
//! scripts are in `tests/drivers`; `scripts/setup.sh` installs what they import.
//!
//! With `BULKHEAD_TEST_DIRECT=1` they go straight to the primary: what fails there too is not the proxy's fault.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use crate::support::{Cluster, Login, Proxy, ProxyConfig, connect, programs};

mod jobs;

/// Where a driver connects.
struct Target {
    url: String,
    // Held until the test ends; the proxy is dropped first.
    proxy: Option<Proxy>,
    cluster: Cluster,
}

impl Target {
    fn start() -> Self {
        if env::var_os("BULKHEAD_TEST_DIRECT").is_some_and(|value| value == "1") {
            return Self::direct();
        }
        let cluster = Cluster::start();
        let proxy = Proxy::start(&ProxyConfig::of(&cluster).to_toml());
        Self { url: proxy.url(), proxy: Some(proxy), cluster }
    }

    /// Straight to the primary.
    fn direct() -> Self {
        let cluster = Cluster::start();
        Self { url: cluster.primary.url(Login::App), proxy: None, cluster }
    }

    fn run(&self, command: &mut Command) -> String {
        run(&self.url, command)
    }

    fn run_script(&self, command: &mut Command, script: &str) -> String {
        run_script(&self.url, command, script)
    }

    /// Runs such a script with that many rounds; how many reads ran where, by the reason.
    async fn count_reads(&self, command: &Command, script: &str, rounds: u32) -> BTreeMap<String, f64> {
        let before = self.reads().await;
        let began = Instant::now();
        let mut again = Command::new(command.get_program());
        again.args(command.get_args()).env("ROUNDS", rounds.to_string());
        let text = self.run_script(&mut again, script);
        let took = began.elapsed();
        let mut ran = self.reads().await;
        for (reason, count) in &mut ran {
            *count -= before[reason];
        }
        tell(&format!("{text}{rounds} rounds each in {took:?}, reads: {ran:?}"));
        ran
    }

    async fn reads(&self) -> BTreeMap<String, f64> {
        let Some(proxy) = &self.proxy else { return BTreeMap::new() };
        let metrics = proxy.metrics().await;
        let samples = metrics.lines().filter_map(|line| line.strip_prefix("bulkhead_replica_reads_total{"));
        let read = |sample: &str| {
            let (labels, count) = sample.rsplit_once(' ')?;
            let (_, reason) = labels.split_once("reason=\"")?;
            Some((reason.trim_end_matches("\"}").to_owned(), count.parse().ok()?))
        };
        samples.filter_map(read).collect()
    }

    fn pgbench(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(programs().path("pgbench"));
        self.run(command.args(arguments).arg(&self.url))
    }

    fn pgbench_transactions(&self, arguments: &[&str]) {
        // A thread for each client: while one prepares, pgbench lets the others of its thread wait, in transactions.
        let text = self.pgbench(&[arguments, &["--no-vacuum", "--jobs=50"]].concat());
        assert!(text.contains("number of failed transactions: 0 ") || programs().major() < 15, "{text}");
        assert!(!text.contains("aborted"), "{text}");
    }
}

#[test]
fn psycopg() {
    Target::start().run_script(&mut python(), "psycopg3.py");
}

#[test]
fn asyncpg() {
    Target::start().run_script(&mut python(), "asyncpg.py");
}

/// Content types that a stale read does not find are made twice; the database of `test` is not on the replica at once.
#[tokio::test]
async fn a_django_project_beside_a_replica_that_is_behind() {
    let target = Target::start();
    target.cluster.primary.query("ALTER ROLE app CREATEDB").await;
    target.cluster.replica.query("ALTER SYSTEM SET recovery_min_apply_delay = '200ms'").await;
    target.cluster.replica.query("SELECT pg_reload_conf()").await;
    target.run_script(&mut python(), "django_project.py");
}

/// The console, as psycopg and asyncpg see it.
#[test]
fn console() {
    let cluster = Cluster::start();
    let config = ProxyConfig::of(&cluster).set("console", "admin_users", vec!["app"]);
    let proxy = Proxy::start(&config.to_toml());
    let url = Login::App.url(proxy.port(), "bulkhead");
    Target { url, proxy: Some(proxy), cluster }.run_script(&mut python(), "console.py");
}

/// How often each driver writes and reads: `BULKHEAD_OWN_WRITES` asks for more.
const OWN_WRITES: u32 = 200;

/// One of so many is held until the replica has what was written.
const HELD: u32 = 20;

/// How often it is looked whether reads are held, at most.
const TIMES: u32 = 5;

/// A replica that is behind is no reason not to find what was just written: neither on the primary, nor on the replica, for
/// which reads wait then.
async fn own_writes(command: &mut Command, script: &str) {
    for is_flushed in [true, false] {
        own_writes_with(command, script, is_flushed).await;
    }
}

/// The same where commits wait for the disk, or do not: then a replica gets them later still.
async fn own_writes_with(command: &Command, script: &str, is_flushed: bool) {
    let mut target = Target::start();
    if !is_flushed {
        target.cluster.primary.query("ALTER ROLE app SET synchronous_commit = off").await;
    }
    target.cluster.replica.query("ALTER SYSTEM SET recovery_min_apply_delay = '50ms'").await;
    target.cluster.replica.query("SELECT pg_reload_conf()").await;
    let asked = env::var("BULKHEAD_OWN_WRITES").map(|rounds| rounds.parse().expect("a number"));
    let rounds = asked.unwrap_or(OWN_WRITES);
    let ran = target.count_reads(command, script, rounds).await;
    if let Some(proxy) = &mut target.proxy {
        assert!(ran["fresh_write"] > f64::from(rounds) * 0.9, "the replica was not behind: {ran:?}");
        if !is_flushed {
            // A replica gets it so late that many rounds of waiting would take minutes.
            return;
        }
        let config = ProxyConfig::of(&target.cluster).set("pools.replicas", "causal_wait", "5s");
        proxy.reload_to(&config).await;
        // The script makes its tables anew. Until the catalog has been read again a read of one is not known as a read, and
        // goes to the primary at once; so few rounds may be over by then, twice as many the next time may not.
        let mut held = BTreeMap::from([("held".to_owned(), 0.0)]);
        for time in 0..TIMES {
            for (reason, count) in target.count_reads(command, script, (rounds / HELD) << time).await {
                *held.entry(reason).or_default() += count;
            }
            if held["held"] > f64::from(rounds / HELD) * 0.5 {
                break;
            }
        }
        assert!(held["held"] > f64::from(rounds / HELD) * 0.5, "nothing waited for the replica: {held:?}");
        assert!(held["fresh_write"] < held["held"] / 2.0, "the replica was not used: {held:?}");
    }
}

#[expect(clippy::print_stderr, reason = "the figures are of interest in a long run")]
fn tell(text: &str) {
    eprintln!("{text}");
}

#[tokio::test]
async fn what_was_written_is_found_by_drivers_of_python() {
    own_writes(&mut python(), "own_writes.py").await;
}

#[tokio::test]
async fn what_was_written_is_found_by_drivers_of_node() {
    own_writes(&mut node(), "own_writes.mjs").await;
}

#[tokio::test]
#[ignore = "it needs a JDK; `make check-drivers` runs it"]
async fn what_was_written_is_found_by_pgjdbc() {
    let mut java = Command::new("java");
    // Where Debian installs the driver, and what that needs.
    own_writes(java.arg("--class-path").arg("/usr/share/java/*"), "OwnWrites.java").await;
}

#[tokio::test]
#[ignore = "it needs Ruby; `make check-drivers` runs it"]
async fn what_was_written_is_found_by_active_record() {
    own_writes(&mut Command::new("ruby"), "own_writes.rb").await;
}

#[test]
fn losses_in_transactions() {
    Target::start().run_script(&mut python(), "losses.py");
}

/// What is told of a loss is what is told of one on a server's own connection: the transaction is over, with an error.
#[test]
fn losses_in_transactions_of_node_postgres() {
    let direct = Target::direct().run_script(&mut node(), "losses.mjs");
    assert_eq!(Target::start().run_script(&mut node(), "losses.mjs"), direct);
}

/// The same for tokio-postgres, whose connection outlives the loss where there is a proxy.
#[tokio::test]
async fn losses_in_transactions_of_tokio_postgres() {
    for target in [Target::direct(), Target::start()] {
        let is_direct = target.proxy.is_none();
        target.cluster.primary.query("CREATE TABLE losses (a int); ALTER TABLE losses OWNER TO app").await;
        for how in ["commit", "prepared commit", "statement", "rollback"] {
            let mut client = connect(&target.url).await.expect("the server accepts connections");
            let end = client.prepare("COMMIT").await.expect("it can be prepared");
            let transaction = client.transaction().await.expect("it begins");
            let insert = format!("INSERT INTO losses VALUES (1) /* {how} */");
            transaction.execute(&insert, &[]).await.expect("it is done");
            let marked = format!(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE query LIKE '%/* {how} */' \
                 AND usename = 'app'"
            );
            assert_eq!(target.cluster.primary.value(&marked).await, "t", "{how}");
            match how {
                "commit" => assert!(transaction.commit().await.is_err(), "{how}"),
                "prepared commit" => {
                    assert!(transaction.execute(&end, &[]).await.is_err(), "{how}");
                    drop(transaction);
                }
                "statement" => {
                    assert!(transaction.query("SELECT 1", &[]).await.is_err(), "{how}");
                    drop(transaction);
                }
                _ => assert!(transaction.rollback().await.is_err(), "{how}"),
            }
            assert_eq!(target.cluster.primary.value("SELECT count(*) FROM losses").await, "0", "{how}");
            let goes_on = client.query_one("SELECT 1", &[]).await.map(|row| row.get::<_, i32>(0));
            assert_eq!(goes_on.is_err(), is_direct, "{how}: {goes_on:?}");
            assert_eq!(client.is_closed(), is_direct, "{how}");
        }
    }
}

#[test]
fn sqlalchemy() {
    Target::start().run_script(&mut python(), "sqlalchemy.py");
}

#[test]
fn node_postgres() {
    Target::start().run_script(&mut node(), "node_postgres.mjs");
}

#[test]
fn psql() {
    let target = Target::start();
    let mut command = Command::new(programs().path("psql"));
    command.arg("--no-psqlrc").arg(format!("--dbname={}", target.url)).arg("--file");
    let text = target.run(command.arg(scripts_folder().join("psql.sql")));
    for wanted in ["copied 1000", "\n1000\n", "rolled back: true", "Table \"public.psql_items\"", "all ok"] {
        assert!(text.contains(wanted), "`{wanted}` is missing in:\n{text}");
    }
}

#[tokio::test]
async fn pgbench_in_every_mode() {
    let target = Target::start();
    target.pgbench(&["--initialize", "--scale=1", "--quiet"]);
    for mode in ["simple", "extended", "prepared"] {
        let protocol = format!("--protocol={mode}");
        target.pgbench_transactions(&[&protocol, "--select-only", "--client=50", "--transactions=100"]);
        target.pgbench_transactions(&[&protocol, "--client=20", "--transactions=20"]);
    }
    // TPC-B keeps books: whatever was mixed up between sessions shows here.
    let books = "SELECT (SELECT count(*) FROM pgbench_history), \
        (SELECT sum(delta) FROM pgbench_history) = (SELECT sum(abalance) FROM pgbench_accounts), \
        (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(bbalance) FROM pgbench_branches), \
        (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(bbalance) FROM pgbench_branches)";
    let rows = target.cluster.primary.query(books).await;
    let wanted = ["1200", "t", "t", "t"].map(|text| Some(text.to_owned()));
    assert_eq!(rows, [wanted]);
}

/// Runs a program with `DATABASE_URL`; what it wrote. Panics with that if it fails.
fn run(url: &str, command: &mut Command) -> String {
    command.env("DATABASE_URL", url).env("DRIVERS", drivers_folder());
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; run `make setup`"));
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} ended with {}:\n{text}", output.status);
    text
}

/// Runs a script that prints `all ok` at its end.
pub(crate) fn run_script(url: &str, command: &mut Command, script: &str) -> String {
    let text = run(url, command.arg(scripts_folder().join(script)));
    assert!(text.lines().any(|line| line == "all ok"), "{script} did not get to its end:\n{text}");
    text
}

/// The virtual environment's Python, without the script's folder on its path: scripts are named like drivers.
pub(crate) fn python() -> Command {
    let mut command = Command::new(drivers_folder().join("venv/bin/python"));
    command.arg("-I");
    command
}

/// The Node that `scripts/setup.sh` has installed where the machine had none, or else the machine's.
pub(crate) fn node() -> Command {
    let installed = drivers_folder().join("node");
    if installed.exists() { Command::new(installed) } else { Command::new("node") }
}

pub(crate) fn scripts_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers")
}

/// Where `scripts/setup.sh` installs drivers: in the build folder.
pub(crate) fn drivers_folder() -> PathBuf {
    let build = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is inside the build folder");
    build.join("drivers")
}
