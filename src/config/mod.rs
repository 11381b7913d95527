//! The validated configuration. Only `startup` and the commands see [`Config`]; every layer below takes its own
//! small part of it.
//!
//! [`load()`] reads a TOML file or, without one, the environment. Both go the same way: `file` reads values
//! with their places, `validate` makes them into a [`Config`] or lists every problem. All defaults stand in
//! this file, once.

pub mod diff;
mod env;
mod expand;
mod file;
mod fits;
mod found;
pub mod keys;
mod load;
mod log;
mod overrides;
mod pools;
mod problem;
mod reference;
mod servers;
mod units;
mod url;
mod validate;

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    thread::available_parallelism,
    time::Duration,
};

pub use crate::auth::tls::{
    AcceptorSettings, ChannelBinding, ClientCertificates, ClientMode, ConnectorSettings, Negotiation, Roots,
    SslMode,
};
pub use crate::auth::{RequireAuth, Secret};
pub use crate::backend::{HostPort, SessionAttrs};
pub use crate::sql::{Consistency, Tags};
pub use crate::version::PgBouncer;
pub use env::VARIABLES;
pub use expand::{Environment, process_environment};
pub use found::FoundLibrary;
pub use load::{FILE_BYTES_MAX, LoadError, load, load_in, load_with};
pub use log::{Log, LogFormat, LogLevel, Statistics};
pub use overrides::Override;
pub use problem::{Problem, Problems};
pub use reference::markdown;
pub use validate::parse;

/// A time as the configuration writes it, such as `5s`; else what is wrong with it.
pub fn duration(text: &str) -> Result<Duration, String> {
    units::duration(text).map_err(|wrong| wrong.message)
}

/// Everything Bulkhead runs by, already checked: a value of this type holds no contradiction.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where clients come in.
    pub listen: Listen,
    /// Bounds for clients and their requests.
    pub limits: Limits,
    /// How clients prove who they are.
    pub auth: Auth,
    /// The Postgres servers; the first one named `primary` is the primary. Never empty.
    pub servers: Vec<Server>,
    /// The pools. There is always one named `primary`.
    pub pools: Vec<Pool>,
    /// What a job statement is.
    pub jobs: Jobs,
    /// Which sessions are workers.
    pub workers: Workers,
    /// Databases that clients may ask for; `["*"]` means any.
    pub databases: Vec<String>,
    /// The console.
    pub console: Console,
    /// Statistics of statements.
    pub statistics: Statistics,
    /// Which lines are logged, and how.
    pub log: Log,
    /// What `/metrics` tells.
    pub metrics: Metrics,
    /// What it says that is more likely a mistake than meant.
    pub warnings: Problems,
}

/// `[listen]`
#[derive(Clone, Debug, PartialEq)]
pub struct Listen {
    /// Postgres clients.
    pub address: SocketAddr,
    /// The directory of a Unix socket for Postgres clients; its port is that of `address`.
    pub unix_socket_dir: Option<PathBuf>,
    /// Permissions of that socket.
    pub unix_socket_mode: u32,
    /// `/metrics`, `/healthz`, `/readyz`, `/api/v1` and the live page; `None` switches it off.
    pub http: Option<SocketAddr>,
    /// The bearer token that actions over HTTP need; without one there are none.
    pub http_token: Option<Secret>,
    /// Runtime threads. Default: 1 up to two cores, else cores - 1.
    pub threads: usize,
    /// How long SIGTERM waits for transactions to finish.
    pub shutdown_grace: Duration,
    /// TLS for Postgres clients.
    pub tls: AcceptorSettings,
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Client connections, all together.
    pub max_clients: usize,
    /// From accept to the end of authentication.
    pub login_timeout: Duration,
    /// How long statements may go on whose client has left.
    pub orphan_timeout: Duration,
    /// Bytes of one request that are kept in memory before it must be routed.
    pub request_buffer: usize,
    /// Bytes of unfinished requests of all clients together.
    pub request_buffer_total: usize,
    /// Texts above this are not classified (they go to the primary).
    pub statement_bytes: usize,
    /// Entries of the verdict cache.
    pub verdict_cache: usize,
    /// Protocol-level prepared statements of one client.
    pub prepared_per_client: usize,
    /// What the prepared statements of one client may take.
    pub prepared_bytes_per_client: usize,
    /// What the prepared statements that clients share may take, all together.
    pub prepared_bytes: usize,
    /// Protocol-level prepared statements kept on one backend.
    pub prepared_per_backend: usize,
    /// Bytes of the names and values of one client's settings that are carried.
    pub settings_per_client: usize,
    /// How often the catalog is looked at, and its snapshot read again if it has changed.
    pub catalog_refresh: Duration,
    /// Bytes of notifications that may wait for one client.
    pub notifications_per_client: usize,
    /// How long a peer may acknowledge nothing of what was sent to it; zero means as long as the system tries.
    pub tcp_user_timeout: Duration,
    /// What becomes of listening clients when notifications may have been missed.
    pub listen_on_gap: ListenOnGap,
}

/// What becomes of listening clients when the connection that listens for them was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenOnGap {
    /// They are disconnected, as if it had been their own connection (the default).
    Disconnect,
    /// They get a WARNING once the server is listened to again.
    Warn,
}

impl ListenOnGap {
    /// As the configuration writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disconnect => "disconnect",
            Self::Warn => "warn",
        }
    }
}

/// `[auth]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// The method asked of clients.
    pub method: AuthMethod,
    /// A PgBouncer-style users file.
    pub users_file: Option<PathBuf>,
    /// A login is proven at the server again when the last proof is older; zero: every login.
    pub reprove_after: Duration,
}

/// How clients prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// SCRAM-SHA-256 (the default).
    ScramSha256,
    /// md5; users whose verifier is SCRAM still use SCRAM.
    Md5,
    /// Anybody who names a known user.
    Trust,
}

impl AuthMethod {
    /// As the file writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ScramSha256 => "scram-sha-256",
            Self::Md5 => "md5",
            Self::Trust => "trust",
        }
    }
}

/// `[servers.NAME]`
#[derive(Clone, PartialEq, Eq)]
pub struct Server {
    /// The key in the file.
    pub name: String,
    /// Where it may be, in the order in which they are tried. Never empty.
    pub hosts: Vec<HostPort>,
    /// `target_session_attrs` of the URL: what must be found there.
    pub session_attrs: SessionAttrs,
    /// User of the URL.
    pub user: String,
    /// Password of the URL, if any. Never shown.
    pub password: Option<String>,
    /// Database of the URL.
    pub database: String,
    /// Connections over all pools, `None` means the sum of its pools.
    pub max_connections: Option<usize>,
    /// The share of reads that it gets beside other replicas.
    pub weight: usize,
    /// `sslmode` of the URL, and what else it says of TLS.
    pub tls: ConnectorSettings,
    /// `connect_timeout` of the URL: where given, it is used in place of the pools'.
    pub connect_timeout: Option<Duration>,
    /// `application_name` of the URL: what connections are called until a session's name is put on them.
    pub application_name: Option<String>,
    /// `require_auth` of the URL: how the server may ask for a password.
    pub require_auth: RequireAuth,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("name", &self.name)
            .field("hosts", &self.hosts)
            .field("session_attrs", &self.session_attrs)
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "***"))
            .field("database", &self.database)
            .field("max_connections", &self.max_connections)
            .field("weight", &self.weight)
            .field("tls", &self.tls)
            .field("connect_timeout", &self.connect_timeout)
            .field("application_name", &self.application_name)
            .field("require_auth", &self.require_auth)
            .finish()
    }
}

/// `[pools.NAME]`
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// The key in the file: `primary`, `replicas`, `jobs`, `workers`, or any other.
    pub name: String,
    /// Positions in [`Config::servers`]. Never empty.
    pub servers: Vec<usize>,
    /// Backends on each server, of all identities together. At least 1.
    pub max_connections: usize,
    /// Backends kept open on each server even if idle.
    pub min_connections: usize,
    /// Sessions that may wait; one more is refused at once.
    pub max_waiting: usize,
    /// How long a session waits for a backend.
    pub wait_timeout: Duration,
    /// Idle backends are closed after this; zero means never.
    pub idle_timeout: Duration,
    /// Backends are closed at this age (less up to a tenth, at random); zero means never.
    pub max_lifetime: Duration,
    /// TCP connect and authentication of a backend.
    pub connect_timeout: Duration,
    /// A backend idle for longer than this is checked before use; zero means always.
    pub check_after: Duration,
    /// How long closing a backend (cancel, drain, Terminate) may take before its place is given up.
    pub close_timeout: Duration,
    /// How long a session keeps a backend.
    pub mode: PoolMode,
    /// Backends on each server that pinned sessions may keep between transactions.
    pub max_pinned: usize,
    /// A pinned session that idles for longer is ended if others wait in vain; zero means never.
    pub pinned_idle_timeout: Duration,
    /// Of the pool `replicas`: what its reads need.
    pub reads: Reads,
}

/// What reads on replicas need, and how it is found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reads {
    /// How fresh a replica must be.
    pub consistency: Consistency,
    /// How long a read may be held for a replica to be so; zero for not at all.
    pub causal_wait: Duration,
    /// The least time between two questions to a server for its position.
    pub sample_interval: Duration,
    /// A replica that is behind by more in time serves no reads; zero for no bound.
    pub max_lag: Duration,
    /// A replica that is behind by more in bytes serves no reads; zero for no bound.
    pub max_lag_bytes: usize,
}

impl Default for Reads {
    fn default() -> Self {
        Self {
            consistency: Consistency::Tables,
            causal_wait: Duration::ZERO,
            sample_interval: Duration::from_millis(10),
            max_lag: Duration::from_secs(10),
            max_lag_bytes: 0,
        }
    }
}

/// How long a session keeps a backend of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PoolMode {
    /// Until its transaction ends.
    #[default]
    Transaction,
    /// Until it disconnects.
    Session,
}

/// `[jobs]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jobs {
    /// Presets are those of the libraries that are found ([`Config::with_libraries`]).
    pub auto: bool,
    /// Names of presets, each known to `sql`.
    pub presets: Vec<String>,
    /// Schema that a preset's tables live in, if not its own default (Oban's `prefix`).
    pub schemas: Vec<String>,
    /// More globs, matched as the presets' are.
    pub rules: JobRules,
    /// Definitions of job objects are made on the primary as well as on the job database, if that is another server.
    pub ddl_on_both: bool,
    /// How jobs enqueued on the primary come to the job database.
    pub outbox: Outbox,
}

impl Default for Jobs {
    fn default() -> Self {
        let (presets, schemas) = (Vec::new(), Vec::new());
        let (rules, outbox) = (JobRules::default(), Outbox::default());
        Self { auto: true, presets, schemas, rules, ddl_on_both: false, outbox }
    }
}

/// The keys `outbox..` of `[jobs]`: jobs that are enqueued in a transaction of the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outbox {
    /// Whether there is one.
    pub enabled: bool,
    /// Rows that are moved at once.
    pub batch: usize,
    /// How often the primary is looked at without having been woken.
    pub poll: Duration,
    /// How long it is remembered which rows were moved.
    pub keep: Duration,
}

impl Default for Outbox {
    fn default() -> Self {
        Self { enabled: false, batch: 1000, poll: Duration::from_secs(1), keep: Duration::from_secs(3600) }
    }
}

/// `[jobs.rules]`: globs on folded identifiers (`*` and `?`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobRules {
    /// Any object qualified by one of these schemas.
    pub schemas: Vec<String>,
    /// Tables, also their indexes and sequences by name.
    pub tables: Vec<String>,
    /// Functions.
    pub functions: Vec<String>,
    /// Channels of LISTEN and NOTIFY.
    pub channels: Vec<String>,
}

/// `[console]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Console {
    /// The databases that are the console; empty for none.
    pub databases: Vec<String>,
    /// Users that may do everything there.
    pub admin_users: Vec<String>,
    /// Users that may look.
    pub stats_users: Vec<String>,
    /// Consoles that may be open at once, beside `limits.max_clients`.
    pub max_clients: usize,
    /// How long statements wait for a pool that is paused.
    pub pause_timeout: Duration,
    /// The version of PgBouncer whose columns it has.
    pub like: PgBouncer,
}

/// `[metrics]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Whether the names of pgbouncer_exporter are there as well.
    pub pgbouncer_names: bool,
}

/// `[workers]`: sessions whose statements that are not job statements use the pool `workers`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workers {
    /// Globs on `application_name`.
    pub application_names: Vec<String>,
    /// User names.
    pub users: Vec<String>,
    /// Tags in comments.
    pub comment_tags: Tags,
    /// Length of the time in which a session that has worked on jobs counts as a worker's; zero for never.
    pub job_window: Duration,
}

impl Default for Listen {
    fn default() -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 6432)),
            unix_socket_dir: None,
            unix_socket_mode: 0o777,
            http: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9930))),
            http_token: None,
            threads: if cores <= 2 { 1 } else { cores - 1 },
            shutdown_grace: Duration::from_secs(30),
            tls: AcceptorSettings::default(),
        }
    }
}

impl Default for Console {
    fn default() -> Self {
        Self {
            databases: ["bulkhead", "pgbouncer"].map(str::to_owned).into(),
            admin_users: Vec::new(),
            stats_users: Vec::new(),
            max_clients: 20,
            // PgBouncer's `query_wait_timeout`: a server is restarted within that.
            pause_timeout: Duration::from_secs(120),
            like: PgBouncer::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_clients: 10_000,
            login_timeout: Duration::from_secs(15),
            orphan_timeout: Duration::from_secs(60),
            request_buffer: 1 << 20,
            request_buffer_total: 256 << 20,
            statement_bytes: 256 << 10,
            verdict_cache: 10_000,
            prepared_per_client: 1000,
            prepared_bytes_per_client: 16 << 20,
            prepared_bytes: 64 << 20,
            prepared_per_backend: 500,
            settings_per_client: 64 << 10,
            catalog_refresh: Duration::from_secs(5),
            notifications_per_client: 1 << 20,
            tcp_user_timeout: Duration::from_secs(30),
            listen_on_gap: ListenOnGap::Disconnect,
        }
    }
}

impl Default for Auth {
    fn default() -> Self {
        Self { method: AuthMethod::ScramSha256, users_file: None, reprove_after: Duration::from_secs(60) }
    }
}

/// The pool `primary` on the first server; the numbers are every pool's defaults.
impl Default for Pool {
    fn default() -> Self {
        Self {
            name: PRIMARY.to_owned(),
            servers: vec![0],
            max_connections: 20,
            min_connections: 0,
            max_waiting: 500,
            // PgBouncer waits 120 s: long after the browser has given up.
            wait_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(600),
            max_lifetime: Duration::from_secs(3600),
            connect_timeout: Duration::from_secs(5),
            check_after: Duration::from_secs(30),
            close_timeout: Duration::from_secs(5),
            mode: PoolMode::Transaction,
            max_pinned: pools::pinned_share(20),
            pinned_idle_timeout: Duration::ZERO,
            reads: Reads::default(),
        }
    }
}

/// The server and the pool that must exist.
pub const PRIMARY: &str = "primary";

/// The file that is read if none is named and this one exists.
pub const DEFAULT_PATH: &str = "config/bulkhead.toml";
