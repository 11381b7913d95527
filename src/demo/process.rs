//! Child processes that do not outlive the demonstration: ended on drop, and by the kernel should it be killed.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::{
    Failure,
    machines::{Machine, Machines},
    programs::Owner,
};

/// How often a child is asked whether it has ended.
const POLL: Duration = Duration::from_millis(10);

/// How a child is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    /// SIGKILL, to its process group too: for short helpers such as `initdb`.
    Kill,
    /// SIGTERM: Bulkhead closes its server connections in good order.
    Term,
    /// SIGQUIT: Postgres ends at once without a checkpoint, and gives its shared memory back, which a server that
    /// is killed does not.
    Quit,
}

/// A child.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    farewell: Farewell,
}

/// What to run.
#[derive(Debug)]
pub(super) struct Launch<'a> {
    pub(super) program: &'a Path,
    pub(super) arguments: &'a [&'a OsStr],
    pub(super) owner: Option<Owner>,
    /// Takes its output.
    pub(super) log: &'a Path,
    pub(super) farewell: Farewell,
    /// Where it runs; helpers run anywhere.
    pub(super) on: Option<(&'a Machines, Machine)>,
}

impl Launch<'_> {
    /// Starts it. To be called on the main thread: the kernel sends the signal of `setpriv --pdeathsig` when the
    /// *thread* ends that has started the child.
    pub(super) fn start(&self) -> Result<Running, Failure> {
        let failed = |error| Failure::Program { program: self.program.to_owned(), error };
        let output = fs::OpenOptions::new().create(true).append(true).open(self.log).map_err(failed)?;
        let mut command = self.leashed();
        command.args(self.arguments).stdin(Stdio::null()).stderr(output.try_clone().map_err(failed)?);
        command.stdout(output).env("LC_ALL", "C");
        let entered = self.on.map(|(machines, machine)| machines.enter(machine));
        let child = command.spawn().map_err(failed)?;
        drop(entered);
        Ok(Running { child, farewell: self.farewell })
    }

    /// Runs it to its end.
    pub(super) async fn run(&self) -> Result<(), Failure> {
        let status = self.start()?.wait().await?;
        if status.success() {
            return Ok(());
        }
        Err(Failure::Ended { program: self.program.to_owned(), status })
    }

    /// It leads a session, so that Ctrl-C reaches the demonstration only, and the kernel, which shares CPU time out
    /// among sessions, treats servers and load alike.
    fn leashed(&self) -> Command {
        if cfg!(not(target_os = "linux")) {
            let mut command = Command::new(self.program);
            command.process_group(0);
            return command;
        }
        let signal = if self.farewell == Farewell::Quit { "QUIT" } else { "KILL" };
        let mut command = Command::new("setsid");
        command.args(["setpriv", "--pdeathsig", signal]);
        if let Some(Owner { uid, gid }) = self.owner {
            command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}")).arg("--clear-groups");
        }
        command.arg(self.program);
        command
    }
}

impl Running {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The exit status, if it has ended.
    pub(super) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits for its end. Cancel safe: dropped, the child is as before.
    async fn wait(&mut self) -> Result<ExitStatus, Failure> {
        loop {
            if let Some(status) = self.ended().map_err(Failure::System)? {
                return Ok(status);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn ends_within(&mut self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            // A child that cannot be waited for is not ours any more.
            if !matches!(self.ended(), Ok(None)) {
                return true;
            }
            thread::sleep(POLL);
        }
        false
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.ended(), Ok(None)) {
            return;
        }
        let Some(pid) = Pid::from_raw(self.child.id() as i32) else { return };
        // Errors below: it may have ended meanwhile, which is as good.
        let patience = match self.farewell {
            Farewell::Kill => Duration::ZERO,
            Farewell::Term => {
                kill_process(pid, Signal::TERM).ok();
                Duration::from_secs(4)
            }
            Farewell::Quit => {
                kill_process(pid, Signal::QUIT).ok();
                // The server itself kills children of its that have not ended after 5 s.
                Duration::from_secs(8)
            }
        };
        if !self.ends_within(patience) {
            kill_process_group(pid, Signal::KILL).ok();
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}
