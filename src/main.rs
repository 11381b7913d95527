//! The command line: serve, check a configuration, explain a statement.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is where the program talks to people")]

use std::{io::IsTerminal as _, path::PathBuf, process::ExitCode};

use bulkhead::{app, config, demo, health, reload::Origin, sql, telemetry};
use clap::{Parser, Subcommand};
use rustix::process::{Pid, Signal, kill_process};

/// jemalloc gives less away to alignment and fragmentation, which is most of what an idle client costs.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Bad usage or configuration (`EX_USAGE`).
const EXIT_USAGE: u8 = 64;
/// A port or file is not available (`EX_UNAVAILABLE`).
const EXIT_UNAVAILABLE: u8 = 69;
/// Something else (`EX_SOFTWARE`).
const EXIT_INTERNAL: u8 = 70;
/// A health check says no, as those who run it expect it.
const EXIT_UNHEALTHY: u8 = 1;
/// A signal came before there was anything to show (128 and SIGINT).
const EXIT_INTERRUPTED: u8 = 130;

/// A Postgres proxy that keeps background jobs, reads and writes in separate, bounded connection pools.
///
/// Without a command it serves. Without --config it takes config/bulkhead.toml if that exists, else the
/// environment: DATABASE_URL, and optionally REPLICA_URLS, JOBS_DATABASE_URL, BULKHEAD_LISTEN.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// The configuration file.
    #[arg(long, short, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Check the configuration and list everything that is wrong with it.
    Check,
    /// Tell the class of a statement, its pool, and why.
    Classify {
        /// The statement.
        sql: String,
    },
    /// Ask the Bulkhead that runs with this configuration whether it is ready (for health checks of containers).
    Health,
    /// Start Postgres servers and a load, and show users beside busy workers with one pool and with separate ones.
    Demo {
        /// End after the table; else Bulkhead stays up for tries until Ctrl-C.
        #[arg(long)]
        once: bool,
        /// How long each of the three phases measures.
        #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
        seconds: u32,
    },
    /// Check the configuration, then tell a running bulkhead to load it (SIGHUP).
    ///
    /// The environment of this command may differ from the running one's, which is what ${NAME} means there. The
    /// running one's log says what has changed, or what was wrong.
    Reload {
        #[command(flatten)]
        target: ReloadTarget,
    },
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct ReloadTarget {
    /// The process to tell.
    #[arg(long)]
    pid: Option<i32>,
    /// The file that holds its process id.
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    if let Some(Command::Demo { once, seconds }) = arguments.command {
        return demonstrate(once, seconds);
    }
    let origin = Origin { path: arguments.config };
    let config = match origin.load() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match arguments.command {
        None => serve(config, origin),
        Some(Command::Check) => check(&config),
        Some(Command::Classify { sql }) => classify(&config, &sql),
        Some(Command::Reload { target }) => reload(&config, &target),
        Some(Command::Health) => check_health(&config),
        Some(Command::Demo { .. }) => unreachable!("it needs no configuration and has been run"),
    }
}

fn serve(config: config::Config, origin: Origin) -> ExitCode {
    telemetry::start();
    match app::run(config, origin) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bulkhead: {error}");
            ExitCode::from(match error {
                app::StartError::Listen { .. } | app::StartError::Users(_) => EXIT_UNAVAILABLE,
                app::StartError::Preset(_) | app::StartError::Tls(_) => EXIT_USAGE,
                app::StartError::Auth(_) | app::StartError::System(_) => EXIT_INTERNAL,
            })
        }
    }
}

fn check(config: &config::Config) -> ExitCode {
    let problems = app::check_certificates(config);
    for problem in &problems {
        eprintln!("{problem}");
    }
    if problems.is_empty() {
        println!("the configuration is valid");
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_USAGE)
    }
}

fn classify(config: &config::Config, sql: &str) -> ExitCode {
    let rules = match app::rules(config) {
        Ok(rules) => rules,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let catalog = app::read_catalog(config).unwrap_or_else(|error| {
        eprintln!(
            "the primary's catalog could not be read ({error}); what names tables is taken for a write"
        );
        sql::Catalog::empty()
    });
    let explanation = sql::explain(&rules, &catalog, sql.as_bytes());
    print!("pool       {}\n{explanation}", app::pool_for(config, explanation.verdict));
    ExitCode::SUCCESS
}

/// Tells the process to reload, unless it would refuse what the files say now.
fn reload(config: &config::Config, target: &ReloadTarget) -> ExitCode {
    if let Err(error) = app::check(config) {
        eprintln!("{error}\nnothing was sent");
        return ExitCode::from(EXIT_USAGE);
    }
    let told = process_of(target).and_then(|pid| {
        let sent = kill_process(pid, Signal::HUP);
        sent.map_err(|error| format!("process {} cannot be told: {error}", pid.as_raw_nonzero()))?;
        Ok(pid)
    });
    match told {
        Ok(pid) => {
            println!("told process {} to reload; its log says what has changed", pid.as_raw_nonzero());
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::from(EXIT_UNAVAILABLE)
        }
    }
}

/// The process, if there is one and it is a bulkhead: SIGHUP ends most others.
fn process_of(target: &ReloadTarget) -> Result<Pid, String> {
    let number = match (&target.pid, &target.pid_file) {
        (Some(pid), _) => *pid,
        (None, Some(path)) => std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?
            .trim()
            .parse()
            .map_err(|_| format!("{} does not hold a process id", path.display()))?,
        (None, None) => return Err("--pid or --pid-file is missing".to_owned()),
    };
    let pid = Some(number).filter(|number| *number > 0).and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| format!("{number} is not a process id"))?;
    let name = |process: &str| std::fs::read_to_string(format!("/proc/{process}/comm"));
    // Where there is no /proc, whoever gave the number knows.
    match (name("self"), name(&number.to_string())) {
        (Ok(own), Ok(its)) if own != its => {
            Err(format!("process {number} is {}, not {}", its.trim(), own.trim()))
        }
        (Ok(_), Err(_)) => Err(format!("there is no process {number}")),
        _ => Ok(pid),
    }
}

fn check_health(config: &config::Config) -> ExitCode {
    match health::check(config) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bulkhead: {error}");
            ExitCode::from(EXIT_UNHEALTHY)
        }
    }
}

fn demonstrate(once: bool, seconds: u32) -> ExitCode {
    let mut out = std::io::stdout();
    let options = demo::Options { once, seconds, is_terminal: out.is_terminal() };
    match demo::run(options, &mut out) {
        Ok(demo::Ending::Complete) => ExitCode::SUCCESS,
        Ok(demo::Ending::Interrupted) => ExitCode::from(EXIT_INTERRUPTED),
        Err(error) => {
            eprintln!("bulkhead demo: {error}");
            ExitCode::from(if error.is_missing() { EXIT_UNAVAILABLE } else { EXIT_INTERNAL })
        }
    }
}
