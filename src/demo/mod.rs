//! `bulkhead demo`: real Postgres servers, Bulkhead in front of them, users beside busy workers, through one pool and
//! through separate ones, in turn and several times.
//!
//! Everything is real: installed Postgres programs, this very program as a process of its own, clients over TCP. The
//! load is the same each time and knows one URL. Nothing outlives the demonstration: its servers end with it, even if
//! it is killed, and it removes its folder (if it was killed, the next one does).

mod failure;
mod figures;
mod folder;
mod load;
mod machines;
mod postgres;
mod process;
pub mod programs;
mod progress;
mod proxy;
pub mod schema;
mod story;

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

pub use failure::DemoError;
use failure::Failure;
use folder::Folder;
use machines::Machines;
use postgres::{Passwords, Setup};
use programs::Programs;
use progress::Progress;

/// Names the folder of PostgreSQL's programs, where the search would find others or none.
const FOLDER_VARIABLE: &str = "BULKHEAD_DEMO_PG_BIN";

/// What the command line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub struct Options {
    /// End after the table; else Bulkhead stays up for tries until Ctrl-C.
    #[arg(long)]
    pub once: bool,
    /// How long each of the four set-ups is measured in a run.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: u32,
    /// How many times all of them are measured, in turn; the table has the medians.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub runs: u32,
    /// The output is a terminal, on which a line can be written over.
    #[arg(skip)]
    pub is_terminal: bool,
}

/// How it ended, if it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The table was shown.
    Complete,
    /// A signal came before.
    Interrupted,
}

/// Runs the demonstration: to its end, or until SIGINT, SIGTERM or SIGHUP. To be called on the program's main thread,
/// because its servers end with the thread that has started them.
pub fn run(options: Options, out: &mut dyn io::Write) -> Result<Ending, DemoError> {
    let programs = Programs::find(FOLDER_VARIABLE).map_err(|missing| DemoError::new(missing.into(), None))?;
    let folder = Folder::new(programs.owner).map_err(|failure| DemoError::new(failure, None))?;
    run_in(&folder, &programs, options, out).map_err(|failure| DemoError::new(failure, Some(folder.path())))
}

fn run_in(
    folder: &Folder,
    programs: &Programs,
    options: Options,
    out: &mut dyn io::Write,
) -> Result<Ending, Failure> {
    let passwords = Passwords { superuser: random_text()?, app: random_text()? };
    let machines = Machines::new();
    let setup = Setup { programs, folder, passwords: &passwords, machines: &machines };
    let mut progress = Progress::new(out, options.is_terminal);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let mut ending = Ending::Interrupted;
        tokio::select! {
            // Dropped in the middle, it ends its servers.
            told = story::tell(options, setup, &mut progress, &mut ending) => told?,
            () = signals.next() => {}
        }
        Ok(ending)
    })
}

/// The signals that end the demonstration.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// Letters and digits that nobody can guess: a password, or a folder's name.
fn random_text() -> Result<String, Failure> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| Failure::System(io::Error::other(error)))?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}
