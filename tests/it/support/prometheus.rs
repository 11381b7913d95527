//! A real Prometheus server, and promtool: `scripts/setup.sh test` installs both.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;

use super::{
    network::{free_port, http_get},
    process::Running,
    template::Scratch,
    wait::eventually,
};

const START: Duration = Duration::from_secs(30);

/// A running Prometheus.
pub(crate) struct Prometheus {
    process: Running,
    folder: Scratch,
    port: u16,
}

impl Prometheus {
    /// Starts it with this configuration and these files beside it, and returns once it is ready.
    pub(crate) async fn start(config: &str, files: &[(&str, &str)]) -> Self {
        let folder = Scratch::new();
        for (name, text) in files.iter().chain([&("prometheus.yml", config)]) {
            fs::write(folder.path().join(name), text).expect("the folder is writable");
        }
        // Somebody may take a free port before it does.
        for _ in 0..4 {
            let port = free_port();
            let process = launch(folder.path(), port);
            if is_ready(&process, port).await {
                return Self { process, folder, port };
            }
        }
        let log = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        panic!("Prometheus does not start:\n{config}\n{log}");
    }

    /// What a path of its API answers: `data`.
    pub(crate) async fn ask(&self, path: &str) -> Value {
        let (status, body) = http_get(self.port, path).await.expect("Prometheus answers");
        let mut answer: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
        assert!(status == 200 && answer["status"] == "success", "{path}: {body}");
        answer["data"].take()
    }

    /// The samples that an expression has now.
    pub(crate) async fn query(&self, expression: &str) -> Vec<Value> {
        self.query_before(expression, Duration::ZERO).await
    }

    /// The samples that an expression had so long ago.
    pub(crate) async fn query_before(&self, expression: &str, ago: Duration) -> Vec<Value> {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
        let at = since_1970.saturating_sub(ago).as_secs_f64();
        let data = self.ask(&format!("/api/v1/query?time={at}&query={}", encoded(expression))).await;
        data["result"].as_array().unwrap_or_else(|| panic!("{expression}: {data}")).clone()
    }

    /// Everything it has written.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The number of the process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

fn launch(folder: &Path, port: u16) -> Running {
    let text = |path: &Path| path.to_str().expect("the path is text").to_owned();
    let arguments = [
        format!("--config.file={}", text(&folder.join("prometheus.yml"))),
        format!("--storage.tsdb.path={}", text(&folder.join("data"))),
        format!("--web.listen-address=127.0.0.1:{port}"),
        "--log.level=warn".to_owned(),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Running::start(Path::new("prometheus"), &arguments, &[], None, &folder.join("log"))
        .expect("Prometheus is installed: run `scripts/setup.sh test`")
}

/// Waits until it is ready; false if it ends instead.
async fn is_ready(process: &Running, port: u16) -> bool {
    eventually("Prometheus is ready or ends", START, async || {
        if process.ended().is_some() {
            return Some(false);
        }
        let (status, _) = http_get(port, "/-/ready").await.ok()?;
        (status == 200).then_some(true)
    })
    .await
}

/// Every byte that is not plain, as a query string has it.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// Runs promtool in a folder, with this on its standard input.
pub(crate) fn promtool(arguments: &[&str], folder: &Path, input: &str) -> Output {
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool is installed: run `scripts/setup.sh test`");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(input.as_bytes()).expect("promtool reads its input");
    drop(stdin);
    child.wait_with_output().expect("promtool ends")
}
