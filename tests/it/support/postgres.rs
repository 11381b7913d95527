//! One Postgres server: start, stop, kill, freeze, promote, and ask.

use std::{
    fmt::{Display, Write},
    fs,
    path::PathBuf,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use tokio_postgres::{Client, Config, SimpleQueryMessage};

use super::{
    Certificates, eventually,
    network::{connect_config, free_port},
    process::Running,
    programs::programs,
    template::{self, Scratch, Template},
    wait::wait_until,
};
use rustix::process::{Pid, Signal, kill_process};

/// Generous: the machine may be busy with other tests.
const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(30);

/// What a server is for.
#[derive(Clone, Copy)]
pub(crate) enum Role<'a> {
    Primary,
    /// Streams from another server.
    ReplicaOf(&'a Postgres),
    /// A server of its own with the same roles and databases: another system identifier, other OIDs.
    Jobs,
}

/// The roles that every server knows, by how they log in over TCP. All own what `app` owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Login {
    /// `app`/`secret`, SCRAM; owner of the databases `app` and `app_two`.
    App,
    /// `app_two`/`second`, SCRAM: a second identity.
    AppTwo,
    /// `app_md5`/`secret`, md5.
    Md5,
    /// `app_trust`, no password.
    Trust,
    /// `admin`/`secret`, SCRAM; superuser.
    Admin,
}

/// How a server is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Waits until all clients have gone.
    Smart,
    /// Ends the sessions of its clients (57P01), then stops.
    Fast,
    /// Ends without a checkpoint; recovers at the next start.
    Immediate,
}

/// A server that runs until it is dropped.
pub(crate) struct Postgres {
    name: &'static str,
    folder: Scratch,
    port: u16,
    settings: Vec<(String, String)>,
    process: Mutex<Option<Running>>,
}

/// What may be changed before the start.
pub(crate) struct Builder<'a> {
    role: Role<'a>,
    settings: Vec<(String, String)>,
    hba: &'static str,
}

impl Login {
    /// User and password.
    pub(crate) fn credentials(self) -> (&'static str, &'static str) {
        match self {
            Self::App => ("app", "secret"),
            Self::AppTwo => ("app_two", "second"),
            Self::Md5 => ("app_md5", "secret"),
            Self::Trust => ("app_trust", ""),
            Self::Admin => ("admin", "secret"),
        }
    }

    /// A URL of the database `app` with several hosts, which are ports of this machine.
    pub(crate) fn url_of_hosts(self, ports: &[u16], parameters: &str) -> String {
        let (user, password) = self.credentials();
        let hosts: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        format!("postgres://{user}:{password}@{}/app{parameters}", hosts.join(","))
    }

    /// A URL of the database `app`, or of another one, at a port of this machine.
    pub(crate) fn url(self, port: u16, database: &str) -> String {
        let (user, password) = self.credentials();
        let colon = if password.is_empty() { "" } else { ":" };
        format!("postgres://{user}{colon}{password}@127.0.0.1:{port}/{database}")
    }
}

// === impl Builder ===

impl Builder<'_> {
    /// A setting of `postgresql.conf`, over the harness's own.
    pub(crate) fn setting(mut self, name: &str, value: impl Display) -> Self {
        self.settings.push((name.to_owned(), value.to_string()));
        self
    }

    /// TLS with the certificate `good`.
    pub(crate) fn tls(self, certificates: &Certificates) -> Self {
        self.setting("ssl", "on")
            .setting("ssl_cert_file", certificates.crt("good"))
            .setting("ssl_key_file", certificates.pem_key("good"))
            .setting("ssl_ca_file", certificates.crt("ca"))
    }

    /// Over TCP only with TLS.
    pub(crate) fn only_tls(self) -> Self {
        Self { hba: HBA_TLS, ..self }
    }

    /// Over TCP only with a certificate, and the password as well.
    pub(crate) fn only_client_certificates(self) -> Self {
        Self { hba: HBA_CLIENT_CERTIFICATES, ..self }
    }

    /// A replica has at least as many as its primary; by default as many.
    pub(crate) fn max_connections(self, count: u32) -> Self {
        self.setting("max_connections", count)
    }

    /// Starts it and returns once it accepts connections.
    pub(crate) fn start(self) -> Postgres {
        let (name, template) = match self.role {
            Role::Primary => ("primary", Template::App),
            Role::ReplicaOf(other) if other.name == "jobs" => ("replica", Template::Jobs),
            Role::ReplicaOf(_) => ("replica", Template::App),
            Role::Jobs => ("jobs", Template::Jobs),
        };
        let folder = Scratch::new();
        let data = folder.path().join("data");
        template::copy_to(template, &data);
        let mut settings = Vec::new();
        if let Role::ReplicaOf(primary) = self.role {
            // Both begin as the same copy, so the replica has nothing to fetch but what came after.
            fs::write(data.join("standby.signal"), "").expect("the data folder is writable");
            settings.extend(primary.settings.iter().cloned());
            settings.push(("primary_conninfo".to_owned(), primary.replication_source()));
        }
        settings.extend(self.settings);
        fs::write(data.join("pg_hba.conf"), self.hba).expect("the data folder is writable");
        if let Some(owner) = programs().owner {
            template::hand_over(folder.path(), owner);
        }
        let mut postgres = Postgres { name, folder, port: free_port(), settings, process: Mutex::new(None) };
        // Somebody may take the free port before the server does.
        for _ in 0..5 {
            if postgres.try_boot() {
                return postgres;
            }
            postgres.port = free_port();
        }
        panic!("{name} does not start:\n{}", postgres.log());
    }
}

/// Over the socket, which only the harness uses, everybody is whoever they say.
const HBA: &str = "\
local all all trust
local replication all trust
host all app_trust all trust
host all app_md5 all md5
host replication all all scram-sha-256
host all all all scram-sha-256
";

const HBA_CLIENT_CERTIFICATES: &str = "\
local all all trust
local replication all trust
hostssl all all all scram-sha-256 clientcert=verify-ca
";

const HBA_TLS: &str = "\
local all all trust
local replication all trust
hostssl all app_md5 all md5
hostssl all all all scram-sha-256
";

const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", "127.0.0.1"),
    ("max_connections", "100"),
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("shared_buffers", "64MB"),
    ("password_encryption", "scram-sha-256"),
    ("wal_level", "replica"),
    ("wal_keep_size", "1GB"),
    ("max_wal_senders", "10"),
    ("hot_standby", "on"),
    ("wal_retrieve_retry_interval", "100ms"),
    ("wal_receiver_status_interval", "1s"),
    ("log_line_prefix", "%m [%p] %u@%d %a "),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
];

// === impl Postgres ===

impl Postgres {
    /// Starts a server with the harness's settings.
    pub(crate) fn start(role: Role<'_>) -> Self {
        Self::builder(role).start()
    }

    /// To start a server with other settings.
    pub(crate) fn builder(role: Role<'_>) -> Builder<'_> {
        Builder { role, settings: Vec::new(), hba: HBA }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// A URL of its database `app`.
    pub(crate) fn url(&self, login: Login) -> String {
        login.url(self.port, "app")
    }

    /// A superuser's connection to the database `app` over the Unix socket, past any relay and password.
    pub(crate) async fn admin(&self) -> Client {
        let config = self.admin_config();
        connect_config(&config)
            .await
            .unwrap_or_else(|error| panic!("{} refuses its superuser: {error:?}", self.name))
    }

    /// The same to another database.
    pub(crate) async fn admin_of(&self, database: &str) -> Client {
        let mut config = self.admin_config();
        config.dbname(database);
        connect_config(&config).await.expect("a superuser may")
    }

    /// Runs statements as superuser in the database `app`; the rows of all of them, as text.
    pub(crate) async fn query(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        let messages = self.admin().await.simple_query(sql).await;
        let messages = messages.unwrap_or_else(|error| panic!("{} on `{sql}`: {error:?}", self.name));
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).map(ToOwned::to_owned)).collect())
            }
            _ => None,
        });
        rows.collect()
    }

    /// The first column of the first row of [`Self::query`]; empty for NULL or no row.
    pub(crate) async fn value(&self, sql: &str) -> String {
        let rows = self.query(sql).await;
        rows.into_iter().next().and_then(|row| row.into_iter().next()?).unwrap_or_default()
    }

    /// Waits until `app` has as many backends that `condition` holds for.
    pub(crate) async fn wait_for_app_backends(&self, condition: &str, count: usize) {
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND {condition}");
        eventually(&format!("{count} backends where {condition}"), Duration::from_secs(10), async || {
            (self.value(&sql).await == count.to_string()).then_some(())
        })
        .await;
    }

    /// Ends the backends of `app` that `condition` holds for (57P01), waits until they are gone, and says how many.
    pub(crate) async fn end_app_backends(&self, condition: &str) -> usize {
        let sql = format!(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'app' AND {condition}"
        );
        self.query(&sql).await.len()
    }

    /// `kill -9` of one process, after which the server ends all its other backends too and recovers.
    pub(crate) async fn kill_backend(&self, pid: u32) {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
        // A standby accepts read-only connections.
        let ready = "database system is ready to accept";
        let before = self.log().matches(ready).count();
        kill_process(pid, Signal::KILL).expect("the harness may");
        eventually("the server has recovered", START, async || {
            (self.log().matches(ready).count() > before).then_some(())
        })
        .await;
    }

    /// Stops it in good order and waits until it is gone. [`Stop::Smart`] hangs while clients are connected.
    pub(crate) fn stop(&self, how: Stop) {
        let mut process = self.process();
        let Some(running) = process.as_ref() else { return };
        running.signal(match how {
            Stop::Smart => Signal::TERM,
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        });
        running.wait(STOP);
        *process = None;
    }

    /// `kill -9` of the server with all its backends: what a crash of the machine looks like.
    pub(crate) fn kill(&self) {
        *self.process() = None;
    }

    /// Starts it again after [`Self::stop`] or [`Self::kill`], on the same port with the same data.
    pub(crate) fn boot(&self) {
        assert!(self.try_boot(), "{} does not start again:\n{}", self.name, self.log());
    }

    /// A fast stop and a start.
    pub(crate) fn restart(&self) {
        self.stop(Stop::Fast);
        self.boot();
    }

    /// Freezes it: connections stay open, nothing answers.
    pub(crate) fn pause(&self) {
        self.running(|running| running.signal_all(Signal::STOP));
    }

    /// Ends [`Self::pause`].
    pub(crate) fn resume(&self) {
        self.running(|running| running.signal_all(Signal::CONT));
    }

    /// Makes a replica a primary; returns when it is one.
    pub(crate) async fn promote(&self) {
        self.query("SELECT pg_promote(wait => true)").await;
        eventually("the promoted replica accepts writes", START, async || {
            (self.value("SELECT pg_is_in_recovery()").await == "f").then_some(())
        })
        .await;
    }

    /// Holds back (or lets go) what a replica has received: it falls behind, or catches up.
    pub(crate) async fn set_replay(&self, on: bool) {
        self.query(if on { "SELECT pg_wal_replay_resume()" } else { "SELECT pg_wal_replay_pause()" }).await;
        let wanted = if on { "not paused" } else { "paused" };
        eventually("replay is paused or resumed", START, async || {
            (self.value("SELECT pg_get_wal_replay_pause_state()").await == wanted).then_some(())
        })
        .await;
    }

    /// Waits until this replica has replayed everything that is on the primary's disk now.
    pub(crate) async fn wait_for_replay(&self, primary: &Self) {
        let lsn = primary.value("SELECT pg_current_wal_flush_lsn()").await;
        let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'");
        let admin = self.admin().await;
        eventually("the replica catches up", Duration::from_secs(20), async || {
            let row = admin.query_one(&replayed, &[]).await.expect("the replica answers");
            row.get::<_, Option<bool>>(0).unwrap_or(false).then_some(())
        })
        .await;
    }

    /// Waits until `count` client backends of any user but the harness's own are connected, besides health checks'.
    pub(crate) async fn wait_for_backends(&self, count: usize) {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename <> 'postgres' \
                   AND application_name <> 'bulkhead health check'";
        let what = format!("{} has {count} client backends", self.name);
        eventually(&what, Duration::from_secs(10), async || {
            (self.value(sql).await == count.to_string()).then_some(())
        })
        .await;
    }

    /// Everything the server has logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The process id of the postmaster.
    pub(crate) fn pid(&self) -> u32 {
        self.process().as_ref().expect("the server runs").pid()
    }

    /// The folder of its Unix socket.
    pub(crate) fn socket_folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    fn running(&self, act: impl FnOnce(&Running)) {
        act(self.process().as_ref().expect("the server runs"));
    }

    fn process(&self) -> MutexGuard<'_, Option<Running>> {
        self.process.lock().expect("no panic while held")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn admin_config(&self) -> Config {
        let mut config = Config::new();
        config.host_path(self.folder.path()).port(self.port).user("postgres").dbname("app");
        config.connect_timeout(Duration::from_secs(10));
        config
    }

    fn replication_source(&self) -> String {
        format!("host={} port={} user=postgres", self.folder.path().display(), self.port)
    }

    /// Whether it came up; `false` when it ended instead.
    fn try_boot(&self) -> bool {
        let data = self.folder.path().join("data");
        let mut text = String::new();
        let own = [
            ("port", self.port.to_string()),
            ("unix_socket_directories", self.folder.path().display().to_string()),
        ];
        let harness = SETTINGS.iter().map(|(name, value)| (*name, (*value).to_owned())).chain(own);
        let chosen = self.settings.iter().map(|(name, value)| (name.as_str(), value.clone()));
        // Of a setting that is there twice, the server takes the last.
        for (name, value) in harness.chain(chosen) {
            writeln!(text, "{name} = '{}'", value.replace('\'', "''")).expect("text takes text");
        }
        fs::write(data.join("postgresql.conf"), text).expect("the data folder is writable");

        let data_text = data.display().to_string();
        let program = programs().bin.join("postgres");
        let running = Running::start(&program, &["-D", &data_text], &[], programs().owner, &self.log_path())
            .expect("the postgres program runs");
        let ready = wait_until("the server accepts connections or ends", START, || {
            if running.ended().is_some() { Some(false) } else { self.is_ready(running.pid()).then_some(true) }
        });
        if ready {
            *self.process() = Some(running);
        }
        ready
    }

    /// The postmaster writes into the last line of its lock file how far it is.
    fn is_ready(&self, pid: u32) -> bool {
        let lock = fs::read_to_string(self.folder.path().join("data/postmaster.pid")).unwrap_or_default();
        let mut lines = lock.lines().map(str::trim);
        lines.next() == Some(&pid.to_string()) && lines.nth(6) == Some("ready")
    }
}

impl Drop for Postgres {
    #[expect(clippy::print_stderr, reason = "the test runner shows it with the failure")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of {} (port {}) ---\n{}", self.name, self.port, tail(&self.log()));
        }
        // Killed, it would leave its shared memory to the system, of which there are 4096 pieces until the next boot.
        if let Ok(Some(running)) = self.process.get_mut().map(Option::take) {
            running.signal_all(Signal::CONT);
            running.signal(Signal::QUIT);
            running.wait_a_while(STOP);
        }
    }
}

/// The end of a log, which is what matters.
pub(super) fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    let skipped = lines.len().saturating_sub(200);
    lines[skipped..].join("\n")
}
