//! The program under test, as a process.

use std::{
    env,
    fmt::Write,
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};

use super::{
    Login, ProxyConfig, eventually,
    network::{free_port, http_get},
    postgres::tail,
    process::Running,
    template::Scratch,
    wait::wait_until,
};

const START: Duration = Duration::from_secs(20);

/// Names another program to test than the one that was built with the tests.
const PROGRAM: &str = "BULKHEAD_TEST_PROGRAM";

/// How reloads ended.
const RELOADED: &str = "bulkhead_reloads_total{result=\"ok\"}";
const REFUSED: &str = "bulkhead_reloads_total{result=\"failed\"}";

/// The exit code for an address that is taken.
const UNAVAILABLE: i32 = 69;

/// A running proxy.
pub(crate) struct Proxy {
    process: Running,
    folder: Scratch,
    port: u16,
    http_port: u16,
    config: String,
}

impl Proxy {
    /// Writes the configuration to a file, starts the proxy on it, and returns once it accepts connections. In the
    /// text, `{listen}` and `{http}` stand for the addresses, which are free ports of this machine.
    pub(crate) fn start(config: &str) -> Self {
        Self::start_with(config, &[])
    }

    /// [`Self::start`] with variables of the environment, which the configuration may name.
    pub(crate) fn start_with(config: &str, environment: &[(&str, &str)]) -> Self {
        // Somebody may take a free port before the proxy does.
        for _ in 0..4 {
            let proxy = Self::spawn(config, environment);
            match proxy.listens() {
                None => return proxy,
                Some(status) if status.code() == Some(UNAVAILABLE) => (),
                Some(status) => panic!("the proxy ended at once: {status}"),
            }
        }
        panic!("the proxy finds no free port");
    }

    /// Starts the proxy and does not wait for it: for configurations that it must refuse.
    pub(crate) fn spawn(config: &str, environment: &[(&str, &str)]) -> Self {
        let port = free_port();
        // The same one may be given again.
        let http_port = std::iter::repeat_with(free_port).find(|other| *other != port).expect("endless");
        let folder = Scratch::new();
        let config = fill_in(config, port, http_port);
        fs::write(config_path(folder.path()), &config).expect("the folder is writable");
        let process = launch(folder.path(), environment);
        Self { process, folder, port, http_port, config }
    }

    /// `kill -9`; returns when it is gone.
    pub(crate) fn kill(&self) {
        self.process.kill_all();
    }

    /// Starts it again after its end, on the same ports with the same configuration.
    pub(crate) fn boot(&mut self) {
        assert!(!self.is_running(), "it still runs");
        self.process = launch(self.folder.path(), &[]);
        let ended = self.listens();
        assert!(ended.is_none(), "the proxy does not start again: {ended:?}");
    }

    /// The port for Postgres clients.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The port of `/metrics`.
    pub(crate) fn http_port(&self) -> u16 {
        self.http_port
    }

    /// A URL of the database `app` for the user `app`.
    pub(crate) fn url(&self) -> String {
        self.url_of(Login::App)
    }

    /// A URL of the database `app`.
    pub(crate) fn url_of(&self, login: Login) -> String {
        login.url(self.port, "app")
    }

    /// The text of `/metrics`.
    pub(crate) async fn metrics(&self) -> String {
        let (status, body) = http_get(self.http_port, "/metrics").await.expect("the proxy answers HTTP");
        assert_eq!(status, 200, "/metrics: {body}");
        body
    }

    /// The value of one sample, by its name with labels exactly as `/metrics` writes it; `None` if it is not there.
    pub(crate) async fn metric(&self, sample: &str) -> Option<f64> {
        let text = self.metrics().await;
        let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))?;
        line.trim().parse().ok()
    }

    /// Waits until a sample has this value.
    pub(crate) async fn wait_for_metric(&self, sample: &str, value: f64) {
        eventually(&format!("{sample} = {value}"), Duration::from_secs(10), async || {
            let now = self.metric(sample).await?;
            ((now - value).abs() < f64::EPSILON).then_some(())
        })
        .await;
    }

    /// The number of the process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Replaces the configuration file and tells the proxy to read it again (SIGHUP). It may take a moment.
    pub(crate) fn reload(&mut self, config: &str) {
        self.config = fill_in(config, self.port, self.http_port);
        fs::write(config_path(self.folder.path()), &self.config).expect("the folder is writable");
        self.signal(Signal::HUP);
    }

    /// [`Self::reload`], and waits until it is said to have worked.
    pub(crate) async fn reload_to(&mut self, config: &ProxyConfig) {
        let before = self.metric(RELOADED).await.expect("the counter is there");
        self.reload(&config.to_toml());
        self.wait_for_metric(RELOADED, before + 1.0).await;
    }

    /// [`Self::reload`], and waits until it is said to have been refused.
    pub(crate) async fn reload_in_vain(&mut self, config: &str) {
        let before = self.metric(REFUSED).await.expect("the counter is there");
        self.reload(config);
        self.wait_for_metric(REFUSED, before + 1.0).await;
    }

    /// File descriptors that it has open.
    pub(crate) fn open_descriptors(&self) -> u64 {
        let path = format!("/proc/{}/fd", self.pid());
        fs::read_dir(path).expect("the process runs").count() as u64
    }

    /// Sets how many file descriptors the running process may have; `None` for as many as the system lets it.
    pub(crate) fn limit_descriptors(&self, current: Option<u64>) {
        // It has raised its own to that.
        let maximum = getrlimit(Resource::Nofile).maximum;
        self.set_descriptors(current.or(maximum), maximum);
    }

    /// The same, and it may not raise the limit itself.
    pub(crate) fn cap_descriptors(&self, count: u64) {
        self.set_descriptors(Some(count), Some(count));
    }

    fn set_descriptors(&self, current: Option<u64>, maximum: Option<u64>) {
        let pid = Pid::from_raw(self.pid() as i32).expect("a process");
        prlimit(Some(pid), Resource::Nofile, Rlimit { current, maximum }).expect("its own user asks");
    }

    /// Its configuration file.
    pub(crate) fn config_path(&self) -> PathBuf {
        config_path(self.folder.path())
    }

    /// Waits for the process to end.
    pub(crate) fn wait(&self, within: Duration) -> ExitStatus {
        self.process.wait(within)
    }

    /// Whether the process still runs.
    pub(crate) fn is_running(&self) -> bool {
        self.process.ended().is_none()
    }

    /// Resident memory: all, and the part that no file backs.
    pub(crate) fn memory_bytes(&self) -> (u64, u64) {
        self.process.memory_bytes()
    }

    /// The most resident memory that it has had.
    pub(crate) fn peak_memory_bytes(&self) -> u64 {
        self.process.peak_memory_bytes()
    }

    /// CPU time used so far: user, system.
    pub(crate) fn cpu_seconds(&self) -> (f64, f64) {
        self.process.cpu_seconds()
    }

    /// Everything it has written so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(log_path(self.folder.path())).unwrap_or_default()
    }

    /// Waits until the log contains a text.
    pub(crate) async fn wait_for_log(&self, text: &str) {
        eventually(&format!("the log says `{text}`"), Duration::from_secs(10), async || {
            self.log().contains(text).then_some(())
        })
        .await;
    }

    /// `None` once it accepts connections; its status if it ended instead.
    fn listens(&self) -> Option<ExitStatus> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        wait_until("the proxy accepts connections or ends", START, || {
            if let Some(status) = self.process.ended() {
                return Some(Some(status));
            }
            TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok().then_some(None)
        })
    }

    /// What a failed test should show.
    fn report(&self) -> String {
        let mut report = String::new();
        let path = config_path(self.folder.path());
        writeln!(report, "--- bulkhead --config {} (port {})", path.display(), self.port)
            .expect("text takes text");
        writeln!(report, "--- configuration\n{}", self.config).expect("text takes text");
        writeln!(report, "--- log\n{}", tail(&self.log())).expect("text takes text");
        report
    }
}

impl Drop for Proxy {
    #[expect(clippy::print_stderr, reason = "the test runner shows it with the failure")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.report());
        }
    }
}

/// The program, on the configuration in this folder.
fn launch(folder: &Path, environment: &[(&str, &str)]) -> Running {
    let path = config_path(folder);
    let program = env::var_os(PROGRAM).unwrap_or_else(|| env!("CARGO_BIN_EXE_bulkhead").into());
    let arguments = ["--config", path.to_str().expect("the path is text")];
    Running::start(Path::new(&program), &arguments, environment, None, &log_path(folder))
        .expect("the proxy's program runs")
}

fn fill_in(config: &str, port: u16, http_port: u16) -> String {
    config
        .replace("{listen}", &format!("127.0.0.1:{port}"))
        .replace("{http}", &format!("127.0.0.1:{http_port}"))
}

fn config_path(folder: &Path) -> PathBuf {
    folder.join("bulkhead.toml")
}

fn log_path(folder: &Path) -> PathBuf {
    folder.join("log")
}
