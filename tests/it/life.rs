//! The life of the process: Unix sockets, the service manager, signals while somebody waits, versions and help.

use std::{
    fs,
    os::unix::{
        fs::PermissionsExt,
        net::{UnixDatagram, UnixListener},
    },
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use tokio_postgres::{Client, Config, NoTls};

use crate::support::{
    Postgres, Proxy, ProxyConfig, RawClient, Role, Running, Scratch, Signal, eventually, free_port, http_get,
};

const SOON: Duration = Duration::from_secs(10);

fn bulkhead(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bulkhead")).args(arguments).output().expect("the program runs")
}

async fn connect_unix(folder: &Path, port: u16, password: &str) -> Result<Client, tokio_postgres::Error> {
    let mut config = Config::new();
    config.host_path(folder).port(port).user("app").dbname("app").password(password);
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

#[tokio::test]
async fn clients_come_in_by_a_unix_socket_that_lives_as_long_as_the_process() {
    let primary = Postgres::start(Role::Primary);
    let folder = Scratch::new();
    let text = |mode| {
        let config = ProxyConfig::primary_only(&primary)
            .set("listen", "unix_socket_dir", folder.path().to_str().expect("text"))
            .set("listen", "unix_socket_mode", mode);
        config.to_toml()
    };
    let proxy = Proxy::start(&text("0750"));
    let socket = folder.path().join(format!(".s.PGSQL.{}", proxy.port()));
    proxy.wait_for_log(socket.to_str().expect("text")).await;
    assert_eq!(fs::metadata(&socket).expect("it is there").permissions().mode() & 0o777, 0o750);
    let client = connect_unix(folder.path(), proxy.port(), "secret").await.expect("it listens");
    let one: i32 = client.query_one("SELECT 1", &[]).await.expect("it serves").get(0);
    assert_eq!(one, 1);
    let refused = connect_unix(folder.path(), proxy.port(), "wrong").await.expect_err("a wrong password");
    assert_eq!(refused.code().map(tokio_postgres::error::SqlState::code), Some("28P01"));

    // A second one on the same socket ends, and leaves the first one's alone.
    let same = text("0777").replace("{listen}", &format!("127.0.0.2:{}", proxy.port()));
    let second = Proxy::spawn(&same, &[]);
    assert_eq!(second.wait(SOON).code(), Some(69), "{}", second.log());
    assert!(second.log().contains("another process listens there"), "{}", second.log());
    assert!(second.log().contains("listen.unix_socket_dir"), "{}", second.log());
    connect_unix(folder.path(), proxy.port(), "secret").await.expect("the first one still listens");

    proxy.signal(Signal::TERM);
    assert_eq!(proxy.wait(SOON).code(), Some(0));
    assert!(!socket.exists(), "it is removed at the end");
}

#[tokio::test]
async fn a_stale_socket_is_replaced() {
    let primary = Postgres::start(Role::Primary);
    let folder = Scratch::new();
    let port = free_port();
    let socket = folder.path().join(format!(".s.PGSQL.{port}"));
    drop(UnixListener::bind(&socket).expect("a new socket"));
    let config = ProxyConfig::primary_only(&primary)
        .set("listen", "unix_socket_dir", folder.path().to_str().expect("text"))
        .set("listen", "address", format!("127.0.0.1:{port}"));
    let proxy = Proxy::spawn(&config.to_toml(), &[]);
    eventually("it listens on the socket", SOON, async || {
        connect_unix(folder.path(), port, "secret").await.ok()
    })
    .await;
    // Killed, it leaves its file behind, and the next one replaces that.
    proxy.signal(Signal::KILL);
    proxy.wait(SOON);
    assert!(socket.exists());
    let _next = Proxy::spawn(&config.to_toml(), &[]);
    eventually("the next one listens", SOON, async || connect_unix(folder.path(), port, "secret").await.ok())
        .await;
}

/// What the service manager has been told, as it comes.
struct Manager {
    socket: UnixDatagram,
    folder: Scratch,
}

impl Manager {
    fn new() -> Self {
        let folder = Scratch::new();
        let socket = UnixDatagram::bind(folder.path().join("notify")).expect("a new socket");
        socket.set_read_timeout(Some(SOON)).expect("a timeout");
        Self { socket, folder }
    }

    fn path(&self) -> String {
        self.folder.path().join("notify").to_str().expect("text").to_owned()
    }

    /// Reads until a message has a line that begins so.
    fn wait_for(&self, beginning: &str) -> String {
        let mut buffer = [0; 4096];
        loop {
            let len = self.socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{beginning}: {error}"));
            let message = String::from_utf8_lossy(&buffer[..len]).into_owned();
            if let Some(line) = message.lines().find(|line| line.starts_with(beginning)) {
                return line.to_owned();
            }
        }
    }
}

#[tokio::test]
async fn the_service_manager_is_told() {
    let primary = Postgres::start(Role::Primary);
    let manager = Manager::new();
    let environment = [("NOTIFY_SOCKET", manager.path()), ("WATCHDOG_USEC", "200000".to_owned())];
    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
    let proxy = Proxy::start_with(&ProxyConfig::primary_only(&primary).to_toml(), &environment);
    assert_eq!(manager.wait_for("READY="), "READY=1");
    for _ in 0..3 {
        assert_eq!(manager.wait_for("WATCHDOG="), "WATCHDOG=1");
    }
    proxy.signal(Signal::TERM);
    assert_eq!(manager.wait_for("STOPPING="), "STOPPING=1");
    assert_eq!(proxy.wait(SOON).code(), Some(0));
}

#[tokio::test]
async fn the_status_line_tells_of_clients_and_pools() {
    let primary = Postgres::start(Role::Primary);
    let manager = Manager::new();
    let environment = [("NOTIFY_SOCKET", manager.path())];
    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
    let _proxy = Proxy::start_with(&ProxyConfig::primary_only(&primary).to_toml(), &environment);
    let status = manager.wait_for("STATUS=");
    assert!(status.contains("of 10000 clients; primary: "), "{status}");
    // Our own check of the server may be waiting for its connection at that moment.
    assert!(status.contains(" of 10 busy, ") && status.ends_with(" waiting"), "{status}");
}

/// Opens sockets as a service manager does, puts them at descriptor 3 and on, and becomes the program.
const ACTIVATE: &str = "
import os, socket, sys
program, config, tcp, http, path = sys.argv[1:]
sockets = []
for kind, address in [(socket.AF_INET, ('127.0.0.1', int(tcp))), (socket.AF_UNIX, path), (socket.AF_INET, ('127.0.0.1', int(http)))]:
    s = socket.socket(kind, socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(address)
    s.listen(16)
    sockets.append(os.dup2(s.fileno(), 100 + len(sockets)))
for at, fd in enumerate(sockets):
    os.dup2(fd, 3 + at, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='3', LISTEN_FDNAMES='clients:clients:http')
os.execv(program, [program, '--config', config])
";

#[tokio::test]
async fn sockets_of_the_service_manager_take_the_place_of_the_configurations() {
    let primary = Postgres::start(Role::Primary);
    let folder = Scratch::new();
    let (tcp, http, unused) = (free_port(), free_port(), free_port());
    let socket = folder.path().join(format!(".s.PGSQL.{tcp}"));
    let config = ProxyConfig::primary_only(&primary)
        .set("listen", "address", format!("127.0.0.1:{unused}"))
        .set("listen", "http", "off");
    let file = folder.path().join("bulkhead.toml");
    fs::write(&file, config.to_toml()).expect("a writable folder");
    let text = |path: &Path| path.to_str().expect("text").to_owned();
    let program = env!("CARGO_BIN_EXE_bulkhead");
    let (tcp_text, http_text) = (tcp.to_string(), http.to_string());
    let arguments =
        ["-c", ACTIVATE, program, &text(&file), tcp_text.as_str(), http_text.as_str(), &text(&socket)];
    let log = folder.path().join("log");
    let process = Running::start(Path::new("python3"), &arguments, &[], None, &log).expect("python3 runs");
    eventually("it serves HTTP", SOON, async || {
        http_get(http, "/healthz").await.ok().filter(|(status, _)| *status == 200)
    })
    .await;
    let mut client = RawClient::app(tcp).await;
    assert_eq!(client.query_value("SELECT 1").await, "1");
    connect_unix(folder.path(), tcp, "secret").await.expect("the Unix socket is served");
    assert!(std::net::TcpStream::connect(("127.0.0.1", unused)).is_err(), "listen.address is not used");
    process.signal(Signal::TERM);
    assert_eq!(process.wait(SOON).code(), Some(0), "{}", fs::read_to_string(&log).unwrap_or_default());
    assert!(socket.exists(), "the socket is its manager's");
}

#[test]
fn too_few_file_descriptors_are_told() {
    let folder = Scratch::new();
    let file = folder.path().join("bulkhead.toml");
    fs::write(&file, "[servers.primary]\nurl = \"postgres://u@127.0.0.1:1/d\"\n").expect("a writable folder");
    let mut command = Command::new("sh");
    let script = "ulimit -n 300; exec \"$0\" --config \"$1\" check";
    command.args(["-c", script, env!("CARGO_BIN_EXE_bulkhead")]).arg(&file);
    let output = command.output().expect("a shell runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
    for part in ["limits.max_clients (10000", "only 300", "pools.*.max_connections"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn version_help_and_keys_need_no_configuration() {
    let text = |arguments: &[&str]| {
        let output = bulkhead(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let version = text(&["--version"]);
    for part in [env!("CARGO_PKG_VERSION"), "commit ", "rustc 1.", "PostgreSQL 18", "linux"] {
        assert!(version.contains(part), "{part}: {version}");
    }
    let help = text(&["--help"]);
    for part in ["check --connect", "DATABASE_URL", "Exit codes", "69", "config/bulkhead.toml", "SIGTERM"] {
        assert!(help.contains(part), "{part}: {help}");
    }
    assert!(text(&["keys"]).contains("| `max_connections` | number | `20` |"));
    assert_eq!(bulkhead(&["check", "--no-such-thing"]).status.code(), Some(64));
}

#[tokio::test]
async fn the_shortest_lifetimes_serve() {
    let primary = Postgres::start(Role::Primary);
    for lifetime in ["1ms", "1s"] {
        let config = ProxyConfig::primary_only(&primary)
            .pool("primary", &["primary"], 2)
            .set("pools.primary", "max_lifetime", lifetime)
            .set("pools.primary", "idle_timeout", "1ms");
        let proxy = Proxy::start(&config.to_toml());
        let mut client = RawClient::app(proxy.port()).await;
        for _ in 0..10 {
            assert_eq!(client.query_value("SELECT 1").await, "1", "{lifetime}");
        }
        // The clock has gone on.
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        assert_eq!(client.query_value("SELECT 2").await, "2", "{lifetime}");
    }
}
