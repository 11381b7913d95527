//! A place where everything goes wrong that there is an alert for, with a Prometheus that looks on.

use std::{fmt::Write as _, fs, process::Command, sync::Arc, time::Duration};

use tokio::task::JoinSet;

use super::read;
use crate::support::{
    Cluster, Login, Prometheus, Proxy, ProxyConfig, RawClient, Scratch, eventually, free_port, oban,
};

/// Seconds that a query takes which is very slow.
const VERY_SLOW: &str = "5.3";

/// Servers, two Bulkheads and a Prometheus that scrapes them.
pub(super) struct Stage {
    pub(super) cluster: Cluster,
    /// The one that users are at.
    pub(super) proxy: Arc<Proxy>,
    /// One whose configuration is wrong in several ways: its primary is a replica, its job database has no jobs.
    pub(super) misled: Proxy,
    pub(super) prometheus: Prometheus,
    users: JoinSet<()>,
    held: Vec<RawClient>,
}

impl Stage {
    /// All is well with the first Bulkhead, but for a replica that is not there.
    pub(super) async fn set() -> Self {
        let cluster = Cluster::start();
        oban::install(&cluster.primary).await;
        oban::install(&cluster.jobs).await;
        cluster.jobs.query("ALTER TABLE oban_jobs ADD CHECK (worker <> 'refused')").await;
        cluster.primary.query("CREATE TABLE t (a int); ALTER TABLE t OWNER TO app").await;
        let nobody = Login::App.url(free_port(), "app");
        let config = ProxyConfig::of(&cluster)
            .set("servers.replica_2", "url", nobody)
            .pool("replicas", &["replica_1", "replica_2"], 10)
            .set("pools.replicas", "max_lag", "6s")
            .pool("full", &["primary"], 2)
            .set("pools.full", "wait_timeout", "500ms")
            .set("pools.full", "max_waiting", 1)
            .pool("slow", &["primary"], 1)
            .pool("long", &["primary"], 8)
            .pool("pinned", &["primary"], 4)
            .set("pools.pinned", "max_pinned", 2)
            .set("pools.pinned", "wait_timeout", "300ms")
            .set("jobs", "outbox", true)
            .set("jobs", "outbox_poll", "20ms")
            .set("metrics", "pgbouncer_names", true);
        install_outbox(&config);
        let proxy = Arc::new(Proxy::start(&config.to_toml()));
        proxy.wait_for_metric("bulkhead_outbox_ready", 1.0).await;
        let misled = ProxyConfig::primary_only(&cluster.replica)
            .set("servers.jobs", "url", Login::App.url(cluster.jobs.port(), "postgres"))
            .pool("jobs", &["jobs"], 4)
            .set("jobs", "presets", vec!["oban"])
            .set("jobs", "outbox", true)
            .set("limits", "max_clients", 10);
        let misled = Proxy::start(&misled.to_toml());
        let targets = [proxy.http_port(), misled.http_port(), free_port()];
        let prometheus = watch(&targets).await;
        Self { cluster, proxy, misled, prometheus, users: JoinSet::new(), held: Vec::new() }
    }

    /// Lets happen what an alert is for, on both, as far as it can go on at the same time.
    pub(super) async fn everything(&mut self) {
        self.cluster.jobs.kill();
        self.enqueue("waits").await;
        self.cluster.replica.set_replay(false).await;
        self.mislead().await;
        self.user("app", |_| "INSERT INTO t VALUES (1)".to_owned(), Duration::from_millis(50));
        self.user("app", |_| "BEGIN; INSERT INTO t VALUES (1); COMMIT".to_owned(), Duration::from_millis(50));
        self.user("app", |_| "SELECT count(*) FROM t".to_owned(), Duration::from_millis(20));
        self.user("app", |_| "SELECT count(*) FROM oban_jobs".to_owned(), Duration::from_millis(100));
        self.fill().await;
        self.pin().await;
        for _ in 0..3 {
            self.user("app@slow", |_| "SELECT pg_sleep(0.3)".to_owned(), Duration::ZERO);
        }
        for number in 0..6 {
            // One after the other, so that some end in every second.
            let first = move |round: u32| match round {
                0 => format!("SELECT pg_sleep({number} * 0.9)"),
                _ => format!("SELECT pg_sleep({VERY_SLOW})"),
            };
            self.user("app@long", first, Duration::ZERO);
        }
    }

    /// A user who sends one text after the other, with a pause, whatever the answers.
    fn user(
        &mut self,
        database: &'static str,
        text: impl Fn(u32) -> String + Send + 'static,
        pause: Duration,
    ) {
        let port = self.proxy.port();
        self.users.spawn(async move {
            let mut client = RawClient::login(port, Login::App, database).await;
            for round in 0.. {
                client.query(&text(round)).await;
                // Until the primary is killed, or Bulkhead is.
                loop {
                    match client.try_read_message().await {
                        Some(message) if message.tag == b'Z' => break,
                        Some(_) => {}
                        None => return,
                    }
                }
                tokio::time::sleep(pause).await;
            }
        });
    }

    /// Takes all places of a pool, and comes for more.
    async fn fill(&mut self) {
        for _ in 0..2 {
            let mut client = RawClient::login(self.proxy.port(), Login::App, "app@full").await;
            client.ask("BEGIN; SELECT 1").await;
            self.held.push(client);
        }
        for _ in 0..2 {
            self.user("app@full", |_| "SELECT 1".to_owned(), Duration::from_millis(10));
        }
    }

    /// Takes all pins of a pool, and comes for more.
    async fn pin(&mut self) {
        for _ in 0..2 {
            let mut client = RawClient::login(self.proxy.port(), Login::App, "app@pinned").await;
            client.ask("CREATE TEMP TABLE held (a int)").await;
            self.held.push(client);
        }
        self.user("app@pinned", |_| "CREATE TEMP TABLE more (a int)".to_owned(), Duration::from_millis(10));
    }

    async fn enqueue(&self, worker: &str) {
        let mut client = RawClient::app(self.proxy.port()).await;
        client.ask("BEGIN").await;
        client.ask("INSERT INTO t VALUES (0)").await;
        let answer = client.ask(&format!("INSERT INTO oban_jobs (worker) VALUES ('{worker}')")).await;
        assert!(answer.iter().all(|message| message.tag != b'E'), "{answer:?}");
        client.ask("COMMIT").await;
    }

    /// Adds a job that the job database does not take, once Prometheus has seen that there has been none.
    pub(super) async fn refuse_a_job(&self) {
        eventually("Prometheus has scraped", Duration::from_secs(20), async || {
            let samples = self.prometheus.query("bulkhead_outbox_refused_total").await;
            (!samples.is_empty()).then_some(())
        })
        .await;
        self.enqueue("refused").await;
        self.proxy.wait_for_metric("bulkhead_outbox_refused_total", 1.0).await;
    }

    /// Fills the second Bulkhead with clients, and has it read a file that is wrong.
    async fn mislead(&mut self) {
        for _ in 0..10 {
            self.held.push(RawClient::app(self.misled.port()).await);
        }
        self.misled.reload_in_vain("pools = 7").await;
    }
}

fn install_outbox(config: &ProxyConfig) {
    let folder = Scratch::new();
    let file = folder.path().join("bulkhead.toml");
    let text = config.to_toml().replace("{listen}", "127.0.0.1:6432").replace("{http}", "127.0.0.1:9930");
    fs::write(&file, text).expect("a writable folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
    let output = command.arg("--config").arg(&file).args(["jobs", "init"]).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
}

/// A Prometheus with the project's configuration and alerts, on these targets and in short: a minute is a second. The job
/// of pgbouncer's mixin has the first target, with the label by which its dashboards choose.
pub(super) async fn watch(ports: &[u16]) -> Prometheus {
    let target = |port: &u16| format!("\"127.0.0.1:{port}\"");
    let targets: Vec<String> = ports.iter().map(target).collect();
    let config = read("config/prometheus/prometheus.yml");
    assert!(config.contains("[\"bulkhead:9930\"]"), "{config}");
    let config = shortened(&config.replace("\"bulkhead:9930\"", &targets.join(", ")));
    let mixin = format!(
        "  - job_name: integrations/pgbouncer\n    static_configs:\n      - targets: [{}]\n        labels:\n          \
         pgbouncer_cluster: test\n",
        targets[0]
    );
    let alerts = shortened(&read("config/prometheus/alerts.yml"));
    Prometheus::start(&format!("{config}{mixin}"), &[("alerts.yml", &alerts)]).await
}

/// The text with every duration a sixtieth of what it was, and no less than a second.
fn shortened(text: &str) -> String {
    let mut short = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, from) = rest.split_at(at);
        let digits = from.find(|c: char| !c.is_ascii_digit()).unwrap_or(from.len());
        let (number, after) = from.split_at(digits);
        let unit = after.chars().next().unwrap_or(' ');
        let follows = after.chars().nth(1).unwrap_or(' ');
        let is_duration = before.ends_with([' ', '[']) && matches!(follows, ']' | '\n' | ' ');
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            _ => 0,
        };
        short.push_str(before);
        if is_duration && seconds > 0 {
            let all: u64 = number.parse().expect("digits");
            write!(short, "{}s", (all * seconds / 60).max(1)).expect("text");
            rest = &after[1..];
        } else {
            short.push_str(number);
            rest = after;
        }
    }
    short + rest
}

#[test]
fn durations_are_shortened_and_nothing_else() {
    let text = "for: 15s\nrate(a_bytes{le=\"0.95\"}[5m]))) > 0.1\nfor: 10m\ninterval: 10s\n[1h] 127.0.0.1:9930 5 minutes";
    let short = "for: 1s\nrate(a_bytes{le=\"0.95\"}[5s]))) > 0.1\nfor: 10s\ninterval: 1s\n[60s] 127.0.0.1:9930 5 minutes";
    assert_eq!(shortened(text), short);
}
