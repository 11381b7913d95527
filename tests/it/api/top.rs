//! `bulkhead top` in a terminal (that of `script`, which every Debian has).

use std::{
    fs,
    io::Write as _,
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use super::SOON;
use crate::support::{Postgres, Proxy, ProxyConfig, RawClient, Role, Scratch, eventually, wait_until};

/// What switches to the other screen and back, and hides and shows the cursor.
const ENTER: &str = "\u{1b}[?1049h";
const LEAVE: &str = "\u{1b}[?1049l";
const SHOW_CURSOR: &str = "\u{1b}[?25h";

/// The command in a terminal of 80 by 24.
struct Top {
    script: Child,
    folder: Scratch,
}

impl Top {
    fn start(url: &str) -> Self {
        let folder = Scratch::new();
        let program = env!("CARGO_BIN_EXE_bulkhead");
        let line = format!("stty rows 24 cols 80; exec {program} top --url {url}");
        let output = fs::File::create(folder.path().join("screen")).expect("the folder is writable");
        let mut script = Command::new("script");
        script.args(["-q", "-f", "-e", "-c", &line, "/dev/null"]).env("TERM", "xterm-256color");
        script.stdin(Stdio::piped()).stdout(output).stderr(Stdio::null());
        Self { script: script.spawn().expect("script is installed"), folder }
    }

    /// All that was written to the terminal.
    fn screen(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.path().join("screen")).unwrap_or_default()).into_owned()
    }

    async fn shows(&self, what: &str) {
        eventually(&format!("`{what}` is shown"), SOON, async || self.screen().contains(what).then_some(()))
            .await;
    }

    fn press(&mut self, keys: &[u8]) {
        let stdin = self.script.stdin.as_mut().expect("a pipe");
        stdin.write_all(keys).and_then(|()| stdin.flush()).expect("the terminal takes keys");
    }

    /// The process of the command itself.
    fn pid(&self) -> Pid {
        let script = self.script.id();
        let children = fs::read_to_string(format!("/proc/{script}/task/{script}/children")).expect("it runs");
        let first =
            children.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("it has started it");
        Pid::from_raw(first).expect("a process")
    }

    /// Waits for its end, and returns its exit code. The terminal has been left as it was.
    fn ended(mut self) -> Option<i32> {
        let status = wait_until("it ends", SOON, || self.script.try_wait().expect("it is a child"));
        let screen = self.screen();
        let (_, rest) = screen.rsplit_once(ENTER).expect("it took the other screen");
        assert!(
            rest.contains(LEAVE) && rest.contains(SHOW_CURSOR),
            "it left the terminal as it was: {rest:?}"
        );
        status.code()
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

#[tokio::test]
async fn a_terminal_shows_who_waits_and_is_left_as_it_was() {
    let primary = Postgres::start(Role::Primary);
    let config = ProxyConfig::primary_only(&primary).pool("primary", &["primary"], 1);
    let proxy = Proxy::start(&config.to_toml());
    let url = format!("http://127.0.0.1:{}", proxy.http_port());
    let mut top = Top::start(&url);
    top.shows("All well").await;
    let mut holds = RawClient::app(proxy.port()).await;
    holds.ask("SET application_name = 'culprit'").await;
    holds.ask("BEGIN").await;
    holds.query_value("SELECT 1").await;
    let mut waits = RawClient::app(proxy.port()).await;
    waits.query("SELECT 2").await;
    top.shows("is full: 1 of 1 in use").await;
    top.shows("culprit").await;
    top.press(b"s");
    top.shows("trouble").await;
    top.press(b"e");
    top.shows("ready for clients").await;
    top.press(b"q");
    assert_eq!(top.ended(), Some(0));

    let top = Top::start(&url);
    top.shows("is full").await;
    kill_process(top.pid(), Signal::TERM).expect("it runs");
    assert_eq!(top.ended(), Some(0));

    // Nobody answers: that is said, and Ctrl-C still ends it.
    drop(proxy);
    let mut top = Top::start(&url);
    top.shows("No news").await;
    top.press(b"\x03");
    assert_eq!(top.ended(), Some(0));
}

/// As when a window is closed, or a connection to the machine is lost. Several times: whether somebody is just reading the
/// terminal's end is chance.
#[tokio::test]
async fn it_ends_with_its_terminal() {
    for _ in 0..5 {
        let mut top = Top::start("http://127.0.0.1:1");
        top.shows("No news").await;
        let pid = top.pid().as_raw_nonzero();
        top.script.kill().and_then(|()| top.script.wait()).expect("it ran");
        let is_gone = || {
            let status = fs::read_to_string(format!("/proc/{pid}/status"));
            status.map_or(true, |status| status.contains("State:\tZ"))
        };
        eventually("the command has ended", SOON, async || is_gone().then_some(())).await;
    }
}

#[test]
fn a_url_that_is_none_is_bad_usage() {
    let program = env!("CARGO_BIN_EXE_bulkhead");
    let output = Command::new(program).args(["top", "--url", "localhost"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("write http://HOST:PORT"), "{output:?}");
}
