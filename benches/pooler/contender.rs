//! What is compared: no pooler, PgBouncer, Bulkhead. Each pools to the same server with the same number of backends.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
    time::Duration,
};

use crate::support::{
    Login, Postgres, Proxy, ProxyConfig, Running, Scratch, free_port, programs, wait_until,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Direct,
    PgBouncer,
    Bulkhead,
}

/// A running one.
pub(crate) enum Contender {
    Direct { port: u16 },
    PgBouncer { port: u16, process: Running, version: (u32, u32), _folder: Scratch },
    Bulkhead(Proxy),
}

impl FromStr for Kind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Ok(match text {
            "direct" => Self::Direct,
            "pgbouncer" => Self::PgBouncer,
            "bulkhead" => Self::Bulkhead,
            _ => return Err(()),
        })
    }
}

impl Kind {
    /// Starts it in front of a server, as a plain pooler with so many backends.
    pub(crate) fn start(self, server: &Postgres, backends: usize) -> Contender {
        match self {
            Self::Direct => Contender::Direct { port: server.port() },
            Self::PgBouncer => start_pgbouncer(server.port(), backends),
            Self::Bulkhead => {
                Contender::bulkhead(&plain_config(server).pool("primary", &["primary"], backends as i64))
            }
        }
    }
}

impl Contender {
    /// Bulkhead with a configuration of the caller's.
    pub(crate) fn bulkhead(config: &ProxyConfig) -> Self {
        Self::Bulkhead(Proxy::start(&config.to_toml()))
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Direct { .. } => Kind::Direct,
            Self::PgBouncer { .. } => Kind::PgBouncer,
            Self::Bulkhead(_) => Kind::Bulkhead,
        }
    }

    pub(crate) fn name(&self) -> String {
        match self {
            Self::Direct { .. } => "direct".to_owned(),
            Self::PgBouncer { version: (major, minor), .. } => format!("PgBouncer {major}.{minor}"),
            Self::Bulkhead(_) => "Bulkhead".to_owned(),
        }
    }

    pub(crate) fn port(&self) -> u16 {
        match self {
            Self::Direct { port } | Self::PgBouncer { port, .. } => *port,
            Self::Bulkhead(proxy) => proxy.port(),
        }
    }

    pub(crate) fn url(&self) -> String {
        Login::Trust.url(self.port(), "app")
    }

    /// CPU time used so far, user + system; zero without a pooler.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let (user, system) = match self {
            Self::Direct { .. } => (0.0, 0.0),
            Self::PgBouncer { process, .. } => process.cpu_seconds(),
            Self::Bulkhead(proxy) => proxy.cpu_seconds(),
        };
        user + system
    }

    /// Resident memory that no file backs.
    pub(crate) fn memory_bytes(&self) -> u64 {
        match self {
            Self::Direct { .. } => 0,
            Self::PgBouncer { process, .. } => process.memory_bytes().1,
            Self::Bulkhead(proxy) => proxy.memory_bytes().1,
        }
    }

    /// Whether protocol-level prepared statements work in its transaction pooling.
    pub(crate) fn knows_prepared(&self) -> bool {
        !matches!(self, Self::PgBouncer { version, .. } if *version < (1, 21))
    }
}

/// Bulkhead in front of one server, with no authentication and room for many.
pub(crate) fn plain_config(server: &Postgres) -> ProxyConfig {
    ProxyConfig::primary_only(server)
        .set("servers.primary", "url", server.url(Login::Trust))
        .set("auth", "method", "trust")
        .set("limits", "max_clients", 10_000)
        .set("pools.primary", "max_waiting", 10_000)
        .set("pools.primary", "wait_timeout", "60s")
}

fn start_pgbouncer(server_port: u16, backends: usize) -> Contender {
    let folder = Scratch::new();
    let path = |name: &str| folder.path().join(name);
    // A copy, because the user it runs as may not get into the build folder.
    let program = path("pgbouncer");
    fs::copy(installed_pgbouncer(), &program).expect("PgBouncer is installed: run `make setup`");
    let version = version_of(&program);
    let prepared = if version < (1, 21) { "" } else { "max_prepared_statements = 200" };
    let port = free_port();
    let config = format!(
        "[databases]\n* = host=127.0.0.1 port={server_port}\n\
        [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
        auth_type = trust\nauth_file = {users}\npool_mode = transaction\n\
        default_pool_size = {backends}\nmax_client_conn = 10000\n{prepared}\n\
        log_connections = 0\nlog_disconnections = 0\nlog_stats = 0\n",
        users = path("users").display(),
    );
    fs::write(path("users"), "\"app_trust\" \"\"\n").expect("the folder is writable");
    fs::write(path("pgbouncer.ini"), config).expect("the folder is writable");
    let config = path("pgbouncer.ini").display().to_string();
    let process =
        Running::start(&program, &[&config], &[], programs().owner, &path("log")).expect("PgBouncer runs");
    wait_until("PgBouncer accepts connections", Duration::from_secs(10), || {
        let log = || fs::read_to_string(path("log")).unwrap_or_default();
        assert!(process.ended().is_none(), "PgBouncer ended:\n{}", log());
        TcpStream::connect(("127.0.0.1", port)).ok()
    });
    Contender::PgBouncer { port, process, version, _folder: folder }
}

/// The one that the set-up has built, else the system's.
fn installed_pgbouncer() -> PathBuf {
    let build = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is inside the build folder");
    let recent = build.join("pgbouncer/pgbouncer");
    let system =
        ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/opt/homebrew/bin/pgbouncer"].map(PathBuf::from);
    [recent]
        .into_iter()
        .chain(system)
        .find(|path| path.exists())
        .expect("PgBouncer is installed: run `make setup`")
}

fn version_of(program: &Path) -> (u32, u32) {
    let output = Command::new(program).arg("--version").output().expect("PgBouncer runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
