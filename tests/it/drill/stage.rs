//! Where the faults happen: a primary, a replica and a job database behind relays, Bulkhead before them, and a relay
//! before Bulkhead.

use std::time::Duration;

use crate::support::{
    Certificates, Cluster, Login, Postgres, Proxy, ProxyConfig, Random, RawClient, Relay, error_code,
    eventually,
};

use super::{ledger::Told, load::Load, session::ENDS};

pub(super) const SOON: Duration = Duration::from_secs(10);

/// What the configuration says of waiting. The bounds of faults are made of these.
pub(super) const WAIT_TIMEOUT: Duration = Duration::from_secs(2);
pub(super) const TCP_USER_TIMEOUT: Duration = Duration::from_secs(2);

/// Connections of the primary's pool, besides three for each client of a kind.
const PLACES: i64 = 8;

/// The objects of all clients. What `drill_slow` checks at the end takes a while, so that faults meet COMMITs.
const OBJECTS: &str = "
    SET ROLE app;
    CREATE TABLE drill_rows (key text, part int, who text);
    CREATE TABLE drill_slow (key text, part int, who text);
    CREATE VIEW drill_all AS SELECT * FROM drill_rows UNION ALL SELECT * FROM drill_slow;
    CREATE FUNCTION drill_wait() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_sleep(0.004); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER waits AFTER INSERT ON drill_slow DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION drill_wait();
    CREATE TABLE drill_known AS SELECT * FROM (VALUES (1, 'one'), (2, 'two')) known (part, word);
    RESET ROLE;
";

pub(super) struct Stage {
    // Dropped first, so that it does not complain of its servers.
    pub(super) proxy: Proxy,
    pub(super) cluster: Cluster,
    pub(super) relays: Relays,
    pub(super) config: ProxyConfig,
    pub(super) random: Random,
    /// Clients of each kind.
    pub(super) each: usize,
    /// Connections of the primary's pool.
    pub(super) places: i64,
    /// The clients of the fault at hand.
    load: Option<Load>,
    /// The replica has become the primary.
    pub(super) is_promoted: bool,
    /// Processes of the primary whose other end has vanished for good.
    pub(super) stranded: Vec<String>,
    _certificates: Certificates,
}

/// By what they lead to.
pub(super) struct Relays {
    pub(super) primary: Relay,
    pub(super) replica: Relay,
    pub(super) jobs: Relay,
    /// All clients of the load come through it.
    pub(super) clients: Relay,
}

/// What a stage is built like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Reads go to the replica.
    Replicated,
    /// The primary's URL names both hosts, and commits wait for the replica.
    Paired,
}

impl Stage {
    pub(super) async fn start(shape: Shape, each: usize, seed: u64) -> Self {
        let cluster = Cluster::start();
        cluster.primary.query(OBJECTS).await;
        cluster.jobs.query("SET ROLE app; CREATE TABLE drill_jobs (key text, part int, who text)").await;
        if shape == Shape::Paired {
            cluster.primary.query("ALTER SYSTEM SET synchronous_standby_names = '*'").await;
            cluster.primary.query("SELECT pg_reload_conf()").await;
        }
        cluster.wait_for_replay().await;
        let [primary, replica, jobs] =
            [&cluster.primary, &cluster.replica, &cluster.jobs].map(|server| Relay::start(server.port()));
        let certificates = Certificates::new();
        let places = PLACES + 3 * each as i64;
        let mut config = ProxyConfig::primary_only(&cluster.primary)
            .set("listen", "shutdown_grace", "2s")
            .set("listen.tls", "certificate", certificates.crt("good"))
            .set("listen.tls", "key", certificates.pem_key("good"))
            .set("limits", "max_clients", 200)
            .set("limits", "login_timeout", "2500ms")
            .set("limits", "orphan_timeout", "2s")
            .set("limits", "catalog_refresh", "1s")
            .set("limits", "notifications_per_client", "64KiB")
            .set("limits", "request_buffer_total", "1MiB")
            .set("limits", "tcp_user_timeout", "2s")
            .set("auth", "method", "trust")
            .set("servers.jobs", "url", Login::App.url(jobs.port(), "app"))
            .set("jobs.rules", "tables", vec!["drill_jobs"])
            .pool("primary", &["primary"], places)
            .pool("jobs", &["jobs"], 4);
        config = match shape {
            Shape::Replicated => config
                .set("servers.primary", "url", Login::App.url(primary.port(), "app"))
                .set("servers.replica_1", "url", Login::App.url(replica.port(), "app"))
                .pool("replicas", &["replica_1"], 4)
                // What this is about is faults: reads go on where the primary does not.
                .set("pools.replicas", "consistency", "eventual"),
            Shape::Paired => {
                let parameters = "?target_session_attrs=read-write";
                let url = Login::App.url_of_hosts(&[primary.port(), replica.port()], parameters);
                config.set("servers.primary", "url", url)
            }
        };
        let pools: &[&str] =
            if shape == Shape::Paired { &["primary", "jobs"] } else { &["primary", "replicas", "jobs"] };
        for pool in pools {
            let section = format!("pools.{pool}");
            config = config.set(&section, "wait_timeout", "2s").set(&section, "connect_timeout", "1s");
        }
        let proxy = Proxy::start(&config.to_toml());
        let clients = Relay::start(proxy.port());
        let relays = Relays { primary, replica, jobs, clients };
        let random = Random::new(seed);
        let mut stage = Self {
            proxy,
            cluster,
            relays,
            config,
            random,
            each,
            places,
            load: None,
            is_promoted: false,
            stranded: Vec::new(),
            _certificates: certificates,
        };
        stage.wait_until_reads_are_known().await;
        stage
    }

    /// Reads are proven to be such once the catalog is known.
    pub(super) async fn wait_until_reads_are_known(&mut self) {
        eventually("reads are known as such", Duration::from_secs(20), async || {
            let mut client = RawClient::app(self.proxy.port()).await;
            client.ask("SELECT word FROM drill_known ORDER BY part").await;
            let text = self.proxy.metrics().await;
            text.lines().any(|line| line.contains("class=\"read\"") && !line.ends_with(" 0")).then_some(())
        })
        .await;
    }

    pub(super) fn primary(&self) -> &Postgres {
        if self.is_promoted { &self.cluster.replica } else { &self.cluster.primary }
    }

    pub(super) fn replica(&self) -> &Postgres {
        &self.cluster.replica
    }

    pub(super) async fn begin(&mut self, run: String, each: usize) {
        self.load = Some(Load::start(self.relays.clients.port(), run, each).await);
    }

    pub(super) fn load(&self) -> &Load {
        self.load.as_ref().expect("a fault is at hand")
    }

    pub(super) fn take_load(&mut self) -> Load {
        self.load.take().expect("a fault is at hand")
    }

    /// The fault is over; what follows is only looked at.
    pub(super) fn healed(&self) {
        self.load().healed();
    }

    /// Another client than those of the load, straight at Bulkhead.
    pub(super) async fn client(&self) -> RawClient {
        self.client_with(&[]).await
    }

    pub(super) async fn client_with(&self, parameters: &[(&str, &str)]) -> RawClient {
        let all = [&[("database", "app"), ("application_name", "own")], parameters].concat();
        let client = RawClient::try_login(self.proxy.port(), Login::App, &all).await;
        client.unwrap_or_else(|error| panic!("it is let in, and not {error:?}"))
    }

    /// Has a client begin a long read, which has this in its text, on the replica. While that is not fresh enough, or its new
    /// connections are not known, reads go to the primary: then it is read again.
    pub(super) async fn begin_read_on_replica(&self, reader: &mut RawClient, sql: &str, part: &str) {
        const ROUNDS: usize = 10;
        let which = format!("state = 'active' AND query LIKE '%{part}%'");
        for _ in 0..ROUNDS {
            reader.query(sql).await;
            tokio::select! {
                () = self.replica().wait_for_app_backends(&which, 1) => return,
                () = reader.peek() => assert_eq!(reader.read_error().await, None, "on the primary"),
            }
        }
        panic!("no read was seen on the replica");
    }

    /// Waits for the end of the answer, or of the session, and notes what its client was told.
    pub(super) async fn told(&self, client: &mut RawClient) -> String {
        let mut seen = String::new();
        loop {
            match client.try_read_message().await {
                Some(message) if message.tag == b'E' => {
                    let code = error_code(std::slice::from_ref(&message)).unwrap_or_default();
                    let is_fatal = message.field(b'S').as_deref() != Some("ERROR");
                    seen = if is_fatal { format!("{code}{ENDS}") } else { code };
                    if is_fatal {
                        break;
                    }
                }
                Some(message) if message.tag == b'Z' => break,
                Some(_) => {}
                None => {
                    seen = format!("closed{ENDS}");
                    break;
                }
            }
        }
        if !seen.is_empty() {
            self.load().own(&seen);
        }
        seen
    }

    /// What enters a unit of the own client, under a new key of which is known what it is told.
    pub(super) fn own_insert(&self, told: Told) -> String {
        let key = self.load().own_key(told);
        format!("INSERT INTO drill_rows SELECT '{key}', p, 'own' FROM generate_series(1, 2) p")
    }

    /// Waits until clients have done so many more units: the fault is of no consequence to them.
    pub(super) async fn units(&self, more: usize) {
        let wanted = self.load().units_done() + more;
        eventually("the load goes on", SOON, async || (self.load().units_done() >= wanted).then_some(()))
            .await;
    }

    /// Reloads a changed configuration, and has it taken.
    pub(super) async fn reconfigure(&mut self, change: impl FnOnce(ProxyConfig) -> ProxyConfig) {
        self.proxy.reload_to(&change(self.config.clone())).await;
    }

    /// Back to the configuration of the stage.
    pub(super) async fn restore(&mut self) {
        self.proxy.reload_to(&self.config).await;
    }
}
