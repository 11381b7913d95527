//! Child processes that never outlive the test: killed on drop, and by the kernel should the test itself be killed.

use std::{
    fs, io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{programs::Owner, wait_until};

/// A child and all its descendants.
#[derive(Debug)]
pub(crate) struct Running {
    child: Mutex<Child>,
    pid: u32,
}

impl Running {
    /// Starts a program with its output going to `log`.
    ///
    /// It leads a session of its own: the kernel shares CPU time out among sessions (autogroup), so a server in the
    /// session of its load would be measured wrongly.
    pub(crate) fn start(
        program: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
        owner: Option<Owner>,
        log: &Path,
    ) -> io::Result<Self> {
        let mut command = leashed(program, owner);
        let output = fs::OpenOptions::new().create(true).append(true).open(log)?;
        command.args(arguments).envs(environment.iter().copied()).stdin(Stdio::null());
        command.stdout(output.try_clone()?).stderr(output);
        let child = launch(command)?;
        Ok(Self { pid: child.id(), child: Mutex::new(child) })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// The exit status, if it has ended.
    pub(crate) fn ended(&self) -> Option<ExitStatus> {
        self.child.lock().expect("no panic while held").try_wait().expect("own children can be waited for")
    }

    /// Waits for the end; panics after `within`.
    pub(crate) fn wait(&self, within: Duration) -> ExitStatus {
        wait_until(&format!("process {} ends", self.pid), within, || self.ended())
    }

    /// Waits for the end, but not for ever.
    pub(crate) fn wait_a_while(&self, within: Duration) {
        let deadline = Instant::now() + within;
        while self.ended().is_none() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Signals the process itself, which must not have been waited for yet.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.ended().is_none() {
            signal_pid(self.pid, signal);
        }
    }

    /// Signals the process and everything it started.
    pub(crate) fn signal_all(&self, signal: Signal) {
        if self.ended().is_none() {
            // The parent first: stopped or dead, it starts no new children meanwhile.
            signal_pid(self.pid, signal);
            for pid in descendants(self.pid) {
                signal_pid(pid, signal);
            }
        }
    }

    /// `kill -9` of the process and everything it started; returns when all of them are gone.
    pub(crate) fn kill_all(&self) {
        if self.ended().is_some() {
            return;
        }
        // Stopped first, so that the list of descendants is complete.
        signal_pid(self.pid, Signal::STOP);
        let family = descendants(self.pid);
        for pid in family.iter().chain([&self.pid]) {
            signal_pid(*pid, Signal::KILL);
        }
        self.wait(Duration::from_secs(10));
        wait_until("killed processes are gone", Duration::from_secs(10), || {
            family.iter().all(|pid| is_gone(*pid)).then_some(())
        });
    }

    /// Bytes of resident memory: all of it, and the part that no file backs.
    pub(crate) fn memory_bytes(&self) -> (u64, u64) {
        (self.status_bytes("VmRSS:"), self.status_bytes("RssAnon:"))
    }

    /// The most bytes of resident memory that it has had.
    pub(crate) fn peak_memory_bytes(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kilobytes.unwrap_or(0) * 1024
    }

    /// Seconds of CPU used by all its threads: user, system.
    pub(crate) fn cpu_seconds(&self) -> (f64, f64) {
        let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        // The name in parentheses may contain spaces; utime and stime are the 12th and 13th field after it.
        let rest = stat.rsplit(')').next().unwrap_or_default();
        let mut ticks = rest.split_whitespace().skip(11).map(|field| field.parse::<f64>().unwrap_or(0.0));
        let user = ticks.next().unwrap_or(0.0) / ticks_per_second;
        (user, ticks.next().unwrap_or(0.0) / ticks_per_second)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill_all();
    }
}

/// A command whose process dies with the one that launches it, running as `owner`.
pub(crate) fn leashed(program: &Path, owner: Option<Owner>) -> Command {
    if cfg!(not(target_os = "linux")) {
        let mut command = Command::new(program);
        command.process_group(0);
        return command;
    }
    let mut command = Command::new("setsid");
    command.args(["setpriv", "--pdeathsig", "KILL"]);
    if let Some(Owner { uid, gid }) = owner {
        command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}")).arg("--clear-groups");
    }
    command.arg(program);
    command
}

/// Spawns from a thread that lives as long as the process: the kernel sends the death signal of
/// `setpriv --pdeathsig` when the *thread* that spawned ends, and a test's own thread ends with its test.
fn launch(command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::Sender<io::Result<Child>>);
    static LAUNCHER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let launcher = LAUNCHER.get_or_init(|| {
        let (sender, orders) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, reply) in orders {
                // The one who asked waits for the reply; should it have panicked, the child is killed here.
                if let Err(mpsc::SendError(Ok(mut orphan))) = reply.send(command.spawn()) {
                    orphan.kill().ok();
                }
            }
        });
        Mutex::new(sender)
    });
    let (reply, child) = mpsc::channel();
    launcher.lock().expect("no panic while held").send((command, reply)).expect("the launcher runs for ever");
    child.recv().expect("the launcher answers")
}

fn signal_pid(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid as i32) {
        // It may have ended meanwhile, which is as good.
        kill_process(pid, signal).ok();
    }
}

/// All processes below `root`, as far as `/proc` tells.
fn descendants(root: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if let Some((parent, _)) = parent_and_state(pid) {
            parents.push((pid, parent));
        }
    }
    let mut family = vec![root];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        family.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    family.split_off(1)
}

/// Gone, or a zombie that its new parent has not waited for yet.
fn is_gone(pid: u32) -> bool {
    parent_and_state(pid).is_none_or(|(_, state)| state == 'Z')
}

fn parent_and_state(pid: u32) -> Option<(u32, char)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit(')').next()?.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((fields.next()?.parse().ok()?, state))
}
