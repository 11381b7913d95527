//! `bulkhead demo`: shows what it promises, and leaves nothing behind however it ends.

use std::{
    fs, io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Scratch, wait_until};

/// The machine may be busy with other tests.
const PATIENCE: Duration = Duration::from_secs(240);

/// A demonstration of its own folder for temporary files, by which all its processes are found.
struct Demo {
    child: Child,
    scratch: Scratch,
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let scratch = Scratch::new();
        let output = fs::File::create(scratch.path().join("output")).expect("the folder is writable");
        let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
        command.arg("demo").args(arguments).env("TMPDIR", scratch.path()).stdin(Stdio::null());
        command.stdout(output.try_clone().expect("an open file")).stderr(output);
        // As a shell does: Ctrl-C of the one who runs the tests is not for it.
        let child = command.process_group(0).spawn().expect("the program runs");
        Self { child, scratch }
    }

    fn output(&self) -> String {
        fs::read_to_string(self.scratch.path().join("output")).unwrap_or_default()
    }

    fn wait_for_output(&mut self, text: &str) {
        wait_until(&format!("the demonstration says `{text}`"), PATIENCE, || {
            if let Some(status) = self.child.try_wait().expect("own children can be waited for") {
                assert!(self.output().contains(text), "it ended ({status}):\n{}", self.output());
            }
            self.output().contains(text).then_some(())
        });
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a process id");
        kill_process(pid, signal).expect("own children can be signalled");
    }

    fn wait(&mut self) -> ExitStatus {
        wait_until("the demonstration ends", PATIENCE, || {
            self.child.try_wait().expect("own children can be waited for")
        })
    }

    /// Folders that it has made and that are still there.
    fn folders(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.scratch.path()).expect("the folder is there").flatten();
        entries.filter_map(|entry| Some(entry.path()).filter(|path| path.is_dir())).collect()
    }

    /// Processes whose command line names its folder, or which run in it: all servers and Bulkhead.
    fn processes(&self) -> Vec<u32> {
        processes_of(self.scratch.path())
    }

    fn assert_nothing_is_left(&self) {
        assert_eq!(self.processes(), [] as [u32; 0], "processes are left");
        assert_eq!(self.folders(), [] as [PathBuf; 0], "folders are left");
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Its own children end with it.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn processes_of(folder: &Path) -> Vec<u32> {
    let folder = folder.to_str().expect("the path is text").to_owned() + "/bulkhead-demo-";
    let entries = fs::read_dir("/proc").expect("there is /proc").flatten();
    let named = |pid: &u32| -> io::Result<bool> {
        let process = Path::new("/proc").join(pid.to_string());
        let command = fs::read(process.join("cmdline"))?;
        let runs_in = fs::read_link(process.join("cwd")).unwrap_or_default();
        Ok(String::from_utf8_lossy(&command).contains(&folder) || runs_in.to_string_lossy().contains(&folder))
    };
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| named(pid).unwrap_or(false)).collect()
}

/// The figures of a line of the table.
fn figures(output: &str, name: &str) -> Vec<f64> {
    let line = output.lines().find_map(|line| line.trim_start().strip_prefix(name));
    let line = line.unwrap_or_else(|| panic!("no line `{name}`:\n{output}"));
    line.split_whitespace().map(|cell| cell.replace(',', "").parse().unwrap_or(f64::NAN)).collect()
}

#[test]
fn shows_users_alone_beside_workers_and_apart_from_them() {
    let mut demo = Demo::start(&["--once", "--seconds", "2", "--runs", "1"]);
    demo.wait_for_output("run 1 of 1");
    let status = demo.wait();
    let output = demo.output();
    assert!(status.success(), "{status}:\n{output}");

    let [alone, beside, found, apart] = figures(&output, "user p95, ms")[..] else { panic!("{output}") };
    assert!(alone > 0.0 && found > 0.0 && apart > 0.0, "{output}");
    assert!(
        beside > 100.0 && beside > 4.0 * found.max(apart),
        "one pool lets workers starve users:\n{output}"
    );
    let [_, slow, found, apart] = figures(&output, "user queries/s")[..] else { panic!("{output}") };
    assert!([found, apart].iter().all(|fast| *fast > 4.0 * slow && *fast <= 1010.0), "{output}");
    assert_eq!(figures(&output, "user errors"), [0.0; 4], "{output}");
    let jobs = figures(&output, "jobs/s");
    assert!(jobs[0].is_nan() && jobs[1..].iter().all(|jobs| *jobs > 10.0), "{output}");
    // The workers cannot have more than places allow.
    assert!(jobs[2] <= 5.0 / 0.15 * 1.2, "5 places of 150 ms each:\n{output}");
    assert!(jobs[3] <= 20.0 / 0.15 * 1.2, "20 places of 150 ms each:\n{output}");
    assert_eq!(figures(&output, "job errors")[1..], [0.0; 3], "{output}");
    assert_eq!(figures(&output, "database servers"), [1.0, 1.0, 1.0, 2.0], "{output}");
    assert_eq!(figures(&output, "connections to each"), [20.0; 4], "{output}");
    assert_eq!(figures(&output, "times that alone")[..1], [1.0], "{output}");

    let requests = output.lines().find(|line| line.contains("own count")).expect("the pools are counted");
    for pool in ["jobs", "primary"] {
        let count = requests.split(&format!("{pool} ")).nth(1).expect("each pool is named");
        assert!(!count.starts_with('0'), "pool {pool} served nothing: {requests}");
    }
    demo.assert_nothing_is_left();
}

#[test]
fn stays_up_until_a_signal_and_tells_how_to_reach_it() {
    let mut demo = Demo::start(&["--seconds", "1", "--runs", "1"]);
    demo.wait_for_output("Ctrl-C ends everything");
    let output = demo.output();
    let after = |text: &str| {
        let rest = output.split(text).nth(1).unwrap_or_else(|| panic!("no `{text}`:\n{output}"));
        rest.split([' ', '\n']).next().expect("there is something").to_owned()
    };
    let url = format!("postgres://{}", after("postgres://"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let rows = runtime.block_on(async {
        let client = crate::support::connect(&url).await.expect("the connection string works");
        client.query("SELECT balance FROM accounts LIMIT 1", &[]).await
    });
    assert_eq!(rows.expect("it serves").len(), 1);

    let classify = Command::new(env!("CARGO_BIN_EXE_bulkhead"))
        .args(["--config", &after("--config "), "classify", "DELETE FROM oban_jobs"])
        .output()
        .expect("the program runs");
    assert!(String::from_utf8_lossy(&classify.stdout).contains("pool       jobs"), "{classify:?}");
    assert!(demo.processes().contains(&after("kill -HUP ").parse().expect("a process id")));

    demo.signal(Signal::TERM);
    assert!(demo.wait().success(), "it had shown everything:\n{}", demo.output());
    demo.assert_nothing_is_left();
}

#[test]
fn interrupted_at_any_time_it_leaves_nothing() {
    for moment in ["starting a primary", "run 1 of 5", "60 workers, pools by itself:"] {
        let mut demo = Demo::start(&["--seconds", "2"]);
        demo.wait_for_output(moment);
        demo.signal(Signal::INT);
        assert_eq!(demo.wait().code(), Some(130), "{}", demo.output());
        demo.assert_nothing_is_left();
    }
}

#[test]
fn killed_it_leaves_no_process_and_the_next_one_removes_the_folder() {
    let mut demo = Demo::start(&["--seconds", "2"]);
    // In the middle of measuring: all are there.
    demo.wait_for_output("60 workers, pools by itself:");
    assert!(demo.processes().len() >= 4, "three servers and Bulkhead: {:?}", demo.processes());
    demo.signal(Signal::KILL);
    demo.wait();
    wait_until("all processes have ended", PATIENCE, || demo.processes().is_empty().then_some(()));
    assert_eq!(demo.folders().len(), 1);

    let status = Command::new(env!("CARGO_BIN_EXE_bulkhead"))
        .args(["demo", "--once"])
        .env("TMPDIR", demo.scratch.path())
        // It fails once it has swept: without a PATH nothing can be started.
        .env("PATH", "")
        .output()
        .expect("the program runs");
    assert!(!status.status.success());
    assert_eq!(demo.folders(), [] as [PathBuf; 0], "{status:?}");
}

#[test]
fn without_postgres_it_says_what_to_install() {
    let scratch = Scratch::new();
    let output = Command::new(env!("CARGO_BIN_EXE_bulkhead"))
        .args(["demo", "--once"])
        .env("BULKHEAD_DEMO_PG_BIN", scratch.path())
        .output()
        .expect("the program runs");
    assert_eq!(output.status.code(), Some(69));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("apt-get install postgresql") && text.contains("BULKHEAD_DEMO_PG_BIN"), "{text}");
}
