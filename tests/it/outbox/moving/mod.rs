//! `bulkhead jobs move`: a job library's tables go to the job database and come back while workers run, and whatever is
//! killed meanwhile, each job is done once.

mod functions;
mod load;
mod odd;
mod parts;
mod paused;
mod refusals;
mod schema;
mod steps;
mod whole;

use std::{
    fs,
    io::Read,
    process::{Child, Command, Stdio},
    time::Duration,
};

use load::Load;

use crate::support::{Login, Postgres, Proxy, ProxyConfig, Role, Scratch, eventually, oban, wait_until};

/// The machine may be busy.
const LONG: Duration = Duration::from_secs(60);

/// Notes each run of a job, also of one that runs twice, and the application's own table.
const RUNS: &str = "
    SET ROLE app;
    CREATE TABLE runs (id bigint NOT NULL, worker text NOT NULL);
    CREATE TABLE orders (name text NOT NULL);
    CREATE FUNCTION note_run() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO runs VALUES (NEW.id, NEW.worker);
        RETURN NULL;
    END $$;
    CREATE TRIGGER note_run AFTER UPDATE ON oban_jobs FOR EACH ROW
        WHEN (NEW.state = 'completed' AND OLD.state <> 'completed') EXECUTE FUNCTION note_run();
    RESET ROLE;
";

/// A primary with jobs, and a job database that has Oban's tables and no jobs.
struct Scene {
    primary: Postgres,
    jobs: Postgres,
}

impl Scene {
    async fn start() -> Self {
        let scene = Self { primary: Postgres::start(Role::Primary), jobs: Postgres::start(Role::Jobs) };
        for server in [&scene.primary, &scene.jobs] {
            oban::install(server).await;
            server.query(RUNS).await;
        }
        scene
    }

    /// As it is before: jobs have a pool of their own on the primary.
    fn before(&self) -> ProxyConfig {
        ProxyConfig::primary_only(&self.primary)
            .pool("primary", &["primary"], 20)
            .pool("jobs", &["primary"], 20)
            .set("jobs", "presets", vec!["oban"])
            .set("console", "admin_users", vec!["app"])
    }

    /// As it is to be.
    fn after(&self) -> ProxyConfig {
        self.before()
            .set("servers.jobs", "url", self.jobs.url(Login::App))
            .pool("jobs", &["jobs"], 20)
            .set("jobs", "outbox", true)
            .set("jobs", "outbox_poll", "20ms")
    }

    /// Runs a move to its end; what it has said, if it ended as it should.
    async fn run(&self, config: &ProxyConfig, arguments: &[&str], code: i32) -> String {
        let text = Moving::start(config, arguments).end(code).await;
        assert!(!text.contains("secret"), "{text}");
        text
    }

    async fn step(&self) -> String {
        let exists = self.primary.value("SELECT to_regclass('bulkhead_move.state') IS NOT NULL").await;
        if exists != "t" {
            return "none".to_owned();
        }
        self.primary.value("SELECT direction || '/' || step FROM bulkhead_move.state").await
    }

    /// Waits until the move is at this step.
    async fn wait_for_step(&self, step: &str) {
        eventually(&format!("the move is at {step}"), LONG, async || {
            (self.step().await == step).then_some(())
        })
        .await;
    }
}

/// All rows of a table that is the same on both servers, as text, in their order.
async fn rows(server: &Postgres, table: &str) -> Vec<Vec<Option<String>>> {
    server.query(&format!("SELECT * FROM {table} ORDER BY 1")).await
}

/// A `bulkhead jobs move` that runs, and is killed when it is dropped.
struct Moving {
    child: Child,
    _folder: Scratch,
}

impl Moving {
    fn start(config: &ProxyConfig, arguments: &[&str]) -> Self {
        let folder = Scratch::new();
        let file = folder.path().join("bulkhead.toml");
        let text = config.to_toml().replace("{listen}", "127.0.0.1:6432").replace("{http}", "127.0.0.1:9930");
        fs::write(&file, text).expect("a writable folder");
        let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
        command.arg("--config").arg(&file).args(["jobs", "move"]).args(arguments);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        Self { child, _folder: folder }
    }

    /// `kill -9`; false if it had ended by itself.
    fn kill(mut self) -> bool {
        let runs = self.child.try_wait().expect("an own child").is_none();
        self.child.kill().expect("an own child");
        self.child.wait().expect("an own child");
        runs
    }

    /// Waits for its end, and for this exit code; all that it has said.
    async fn end(self, code: i32) -> String {
        let (ended, text) = self.end_somehow().await;
        assert_eq!(ended, Some(code), "{text}");
        text
    }

    /// Waits for its end; its exit code, and all that it has said.
    async fn end_somehow(self) -> (Option<i32>, String) {
        let ended = tokio::task::spawn_blocking(move || self.wait()).await;
        ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    fn wait(mut self) -> (Option<i32>, String) {
        let status =
            wait_until("the command ends", LONG * 2, || self.child.try_wait().expect("an own child"));
        let mut text = String::new();
        let out = self.child.stdout.as_mut().expect("it was piped");
        out.read_to_string(&mut text).expect("text");
        self.child.stderr.as_mut().expect("it was piped").read_to_string(&mut text).expect("text");
        (status.code(), text)
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Writes the file of a proxy, which does not read it yet.
fn rewrite(proxy: &Proxy, config: &ProxyConfig) {
    let text = config
        .to_toml()
        .replace("{listen}", &format!("127.0.0.1:{}", proxy.port()))
        .replace("{http}", &format!("127.0.0.1:{}", proxy.http_port()));
    fs::write(proxy.config_path(), text).expect("a writable file");
}

/// The URL of a proxy's console.
fn console(proxy: &Proxy) -> String {
    Login::App.url(proxy.port(), "bulkhead")
}

/// How long nobody could write, as a move has told it.
fn pause_millis(text: &str) -> u64 {
    let told = text.split("nobody could write for ").nth(1).and_then(|rest| rest.split(' ').next());
    told.and_then(|millis| millis.parse().ok()).unwrap_or_else(|| panic!("no pause is told: {text}"))
}
