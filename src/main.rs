//! The command line: serve, check a configuration, explain a statement.

#![expect(clippy::print_stderr, reason = "this is where the program talks to people")]

use std::{
    fmt,
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

#[cfg(feature = "top")]
use bulkhead::commands::top;
use bulkhead::{
    admin,
    commands::{check, classify, health, jobs, moving, upstream, why},
    config, demo, sql,
    startup::{
        self, StartError, build, descriptors,
        reload::{self, Origin},
        telemetry,
    },
    version,
};
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
/// A health check says no, as those who run it expect it; or something keeps users waiting.
const EXIT_UNHEALTHY: u8 = 1;
/// `why`: nothing could be asked. 1 says that something was found.
const EXIT_UNKNOWN: u8 = 2;
/// A signal came before there was anything to show (128 and SIGINT).
const EXIT_INTERRUPTED: u8 = 130;

/// A Postgres proxy that keeps background jobs, reads and writes in separate, bounded connection pools.
///
/// Without a command it serves. Without --config it takes config/bulkhead.toml if that exists, else the
/// environment alone: DATABASE_URL is enough.
#[derive(Parser)]
#[command(version = version::VERSION, long_version = version::LONG, about, after_long_help = MORE_HELP)]
struct Arguments {
    /// The configuration file.
    #[arg(long, short, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

const MORE_HELP: &str = include_str!("help.txt").trim_ascii_end();

#[derive(Subcommand)]
enum Command {
    /// Check the configuration and list everything that is wrong with it.
    ///
    /// Example: bulkhead --config bulkhead.toml check --connect
    Check {
        /// Also log in to each server and compare what is found there: role, version, bounds, job tables, and
        /// whether it is behind a pooler.
        #[arg(long)]
        connect: bool,
    },
    /// Print every key of the configuration with its default and meaning, as Markdown.
    ///
    /// Example: bulkhead keys | less
    Keys,
    /// Print every metric with its type, labels, unit and meaning, as Markdown.
    ///
    /// Example: bulkhead metrics | less
    Metrics,
    /// Tell the class of a statement, its pool, and why.
    ///
    /// Example: bulkhead classify "SELECT * FROM oban_jobs"
    Classify {
        /// The statement.
        sql: String,
    },
    /// Ask the Bulkhead that runs with this configuration whether it is ready (for health checks of containers).
    Health,
    /// Ask the Bulkhead that runs with this configuration why users are slow.
    ///
    /// Names the causes, the most certain one first, with what shows each and what to do about it. Ends with 0 if nothing
    /// keeps users waiting, 1 if something was found, 2 if it cannot be asked.
    ///
    /// Example: bulkhead --config bulkhead.toml why
    Why {
        /// Print the report as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Start Postgres servers and a load, and show users beside busy workers with one pool and with separate ones.
    Demo(demo::Options),
    /// Check the configuration, then tell a running bulkhead to load it (SIGHUP).
    ///
    /// The environment of this command may differ from the running one's, which is what ${NAME} means there. The
    /// running one's log says what has changed, or what was wrong.
    Reload {
        #[command(flatten)]
        target: ReloadTarget,
    },
    /// Show in the terminal who waits for what, and who holds it, once a second; `q` ends it.
    #[cfg(feature = "top")]
    Top {
        /// Where Bulkhead answers HTTP. Default: `listen.http` of the configuration, else http://127.0.0.1:9930.
        #[arg(long)]
        url: Option<String>,
    },
    /// Jobs that are enqueued on the primary and moved to a job database on another server: install that, see how it does.
    Jobs {
        #[command(subcommand)]
        command: JobsCommand,
    },
}

#[derive(Clone, Subcommand)]
enum JobsCommand {
    /// Print the SQL that `init` would run, and where.
    Plan {
        /// Allow rows that are on the primary now to be moved to the job database, too.
        #[arg(long)]
        with_rows: bool,
    },
    /// Make what is needed at both servers: a schema `bulkhead`, and sequences that give different numbers.
    ///
    /// Does nothing where all is there. Run the job library's migrations at both servers before.
    Init {
        /// Only print what would run, as `plan` does.
        #[arg(long)]
        dry_run: bool,
        /// Allow rows that are on the primary now to be moved to the job database, too.
        #[arg(long)]
        with_rows: bool,
    },
    /// Tell how many rows wait on the primary, how many were moved or refused, and who moves them.
    Status,
    /// Compare the job library's tables on both sides.
    Verify,
    /// Move the library's tables to the job database (`--to jobs`) or to the primary again (`--back`), while workers run.
    ///
    /// Tables that are missing there are made as they are here. Killed at any moment, it goes on where it was when it is run
    /// again. Needs a configuration whose pools.jobs is on the job database, which no instance has loaded yet.
    ///
    /// Example: bulkhead --config new.toml jobs move --to jobs --console postgres://admin:password@10.0.0.7:6432/bulkhead
    Move(MoveArguments),
    /// Move what waits to the job database, then take it all away. Write `outbox = false` and reload each instance before.
    Undo {
        /// Only print what would run.
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Clone, clap::Args)]
struct MoveArguments {
    #[command(flatten)]
    what: MoveWhat,
    /// How long job statements may wait for the switch; else it is let go, and tried again (5 times).
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = config::duration)]
    max_pause: Duration,
    /// The console of an instance, which is told to PAUSE jobs before the switch, and to RELOAD and RESUME behind it. May be
    /// given several times.
    #[arg(long, value_name = "URL")]
    console: Vec<String>,
    /// Only print what would be done.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, clap::Args)]
#[group(required = true, multiple = false)]
struct MoveWhat {
    /// From the primary to the job database.
    #[arg(long, value_name = "WHERE", value_parser = ["jobs"])]
    to: Option<String>,
    /// From the job database to the primary.
    #[arg(long)]
    back: bool,
    /// Take a move away that has not switched.
    #[arg(long)]
    abort: bool,
    /// Take away what a move that is done has left; behind that there is no --back.
    #[arg(long)]
    finish: bool,
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

/// Tells the reader of standard output. Who has gone, as `| head` does, need not be told.
fn say(text: fmt::Arguments<'_>) {
    let _ = io::stdout().write_fmt(text);
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match arguments.command {
        Some(Command::Keys) => {
            say(format_args!("{}", config::markdown()));
            return ExitCode::SUCCESS;
        }
        Some(Command::Metrics) => {
            say(format_args!("{}", admin::markdown()));
            return ExitCode::SUCCESS;
        }
        Some(Command::Demo(options)) => return demonstrate(options),
        #[cfg(feature = "top")]
        Some(Command::Top { url }) => return show_top(url, &Origin { path: arguments.config }),
        _ => {}
    }
    let origin = Origin { path: arguments.config };
    let config = match origin.load() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            let is_why = matches!(arguments.command, Some(Command::Why { .. }));
            return ExitCode::from(if is_why { EXIT_UNKNOWN } else { EXIT_USAGE });
        }
    };
    match arguments.command {
        None => serve(config, origin),
        Some(Command::Check { connect }) => check(&config, &origin, connect),
        Some(Command::Classify { sql }) => classify(&config, &sql),
        Some(Command::Reload { target }) => reload(&config, &target),
        Some(Command::Health) => check_health(&config),
        Some(Command::Why { json }) => ask_why(&config, json),
        Some(Command::Jobs { command }) => run_jobs(&config, command),
        Some(Command::Keys | Command::Metrics | Command::Demo(_)) => {
            unreachable!("they need no configuration and have been run")
        }
        #[cfg(feature = "top")]
        Some(Command::Top { .. }) => unreachable!("it needs no configuration and has been run"),
    }
}

fn serve(config: config::Config, origin: Origin) -> ExitCode {
    let (log, events) = telemetry::start(&config.log);
    match startup::run(config, origin, (log, events)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bulkhead: {error}");
            ExitCode::from(match error {
                StartError::Listen { .. } | StartError::Inherited(_) | StartError::Users(_) => {
                    EXIT_UNAVAILABLE
                }
                StartError::Preset(_) | StartError::Tls(_) => EXIT_USAGE,
                StartError::Auth(_) | StartError::System(_) => EXIT_INTERNAL,
            })
        }
    }
}

/// All that a start or a reload would refuse.
fn problems(config: &config::Config) -> Vec<String> {
    let mut problems: Vec<_> = check::check_certificates(config).iter().map(ToString::to_string).collect();
    problems.extend(check::check(config).err().map(|error| error.to_string()));
    problems
}

fn check(config: &config::Config, origin: &Origin, connect: bool) -> ExitCode {
    let problems = problems(config);
    for problem in &problems {
        eprintln!("{problem}");
    }
    if !problems.is_empty() {
        return ExitCode::from(EXIT_USAGE);
    }
    say(format_args!("the configuration is valid\n"));
    let shortage = descriptors::shortage(config, descriptors::limit());
    for warning in reload::warnings(config, origin, shortage) {
        say(format_args!("warning: {warning}\n"));
    }
    if !connect {
        return ExitCode::SUCCESS;
    }
    let report = match upstream::check(config) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(EXIT_INTERNAL);
        }
    };
    say(format_args!("\n{}", report.table));
    for warning in &report.warnings {
        say(format_args!("warning: {warning}\n"));
    }
    for problem in &report.problems {
        say(format_args!("problem: {problem}\n"));
    }
    if let Some(found) = &report.found {
        say(format_args!(
            "\nfound on the primary are the tables of job libraries; this says what they get:\n\n{found}\n"
        ));
    }
    if report.problems.is_empty() {
        say(format_args!("the servers fit the configuration\n"));
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_USAGE)
    }
}

fn classify(config: &config::Config, sql: &str) -> ExitCode {
    let catalog = classify::read_catalog(config).unwrap_or_else(|error| {
        eprintln!(
            "the primary's catalog could not be read ({error}); what names tables is taken for a write"
        );
        sql::Catalog::empty()
    });
    let config = &config.clone().with_libraries(&reload::as_found(catalog.libraries()));
    let rules = match build::rules(config) {
        Ok(rules) => rules,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let explanation = sql::explain(&rules, &catalog, sql.as_bytes());
    say(format_args!("pool       {}\n{explanation}", classify::pool_for(config, explanation.verdict)));
    ExitCode::SUCCESS
}

/// Tells the process to reload, unless it would refuse what the files say now.
fn reload(config: &config::Config, target: &ReloadTarget) -> ExitCode {
    let problems = problems(config);
    if !problems.is_empty() {
        eprintln!("{}\nnothing was sent", problems.join("\n"));
        return ExitCode::from(EXIT_USAGE);
    }
    let told = process_of(target).and_then(|pid| {
        let sent = kill_process(pid, Signal::HUP);
        sent.map_err(|error| format!("process {} cannot be told: {error}", pid.as_raw_nonzero()))?;
        Ok(pid)
    });
    match told {
        Ok(pid) => {
            say(format_args!(
                "told process {} to reload; its log says what has changed\n",
                pid.as_raw_nonzero()
            ));
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

fn run_jobs(config: &config::Config, command: JobsCommand) -> ExitCode {
    let task = match command {
        JobsCommand::Plan { with_rows } | JobsCommand::Init { dry_run: true, with_rows } => {
            jobs::Task::Plan { with_rows }
        }
        JobsCommand::Init { dry_run: false, with_rows } => jobs::Task::Init { with_rows },
        JobsCommand::Status => jobs::Task::Status,
        JobsCommand::Verify => jobs::Task::Verify,
        JobsCommand::Undo { dry_run } => jobs::Task::Undo { dry_run },
        JobsCommand::Move(arguments) => return move_jobs(config, arguments),
    };
    told_of_jobs(jobs::run(config, task))
}

fn move_jobs(config: &config::Config, arguments: MoveArguments) -> ExitCode {
    let MoveArguments { what, max_pause, console: consoles, dry_run } = arguments;
    let act = match (what.abort, what.finish, dry_run) {
        (true, ..) => moving::Act::Abort,
        (_, true, _) => moving::Act::Finish,
        (.., true) => moving::Act::Plan,
        _ => moving::Act::Move,
    };
    let direction = if what.back { moving::Direction::Back } else { moving::Direction::ToJobs };
    let request = moving::Request { act, direction, max_pause, consoles };
    let mut tell = |line: &str| say(format_args!("{line}\n"));
    told_of_jobs(moving::run(config, request, &mut tell).map(|()| String::new()))
}

fn told_of_jobs(told: Result<String, jobs::JobsError>) -> ExitCode {
    match told {
        Ok(told) => {
            say(format_args!("{told}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(match error {
                jobs::JobsError::Unfit(_) | jobs::JobsError::Server(_) => EXIT_USAGE,
                jobs::JobsError::System(_) => EXIT_INTERNAL,
            })
        }
    }
}

fn check_health(config: &config::Config) -> ExitCode {
    match health::check(config) {
        Ok(text) => {
            say(format_args!("{text}\n"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bulkhead: {error}");
            ExitCode::from(EXIT_UNHEALTHY)
        }
    }
}

fn ask_why(config: &config::Config, json: bool) -> ExitCode {
    let look =
        if io::stdout().is_terminal() { bulkhead::why::Look::Colours } else { bulkhead::why::Look::Plain };
    let form = if json { why::Form::Json } else { why::Form::Page(look) };
    match why::ask(config, form) {
        Ok((text, well)) => {
            say(format_args!("{text}"));
            if well { ExitCode::SUCCESS } else { ExitCode::from(EXIT_UNHEALTHY) }
        }
        Err(error) => {
            eprintln!("bulkhead why: {error}");
            ExitCode::from(EXIT_UNKNOWN)
        }
    }
}

/// Shows the Bulkhead at the URL, or the one that runs with the configuration, if there is one.
#[cfg(feature = "top")]
fn show_top(url: Option<String>, origin: &Origin) -> ExitCode {
    let configured = || origin.load().ok()?.listen.http.map(health::reachable);
    let url = url.or_else(|| Some(format!("http://{}", configured()?)));
    let Err(error) = top::run(url.as_deref().unwrap_or(top::DEFAULT_URL)) else { return ExitCode::SUCCESS };
    eprintln!("bulkhead top: {error}");
    ExitCode::from(if matches!(error, top::TopError::Url { .. }) { EXIT_USAGE } else { EXIT_UNAVAILABLE })
}

fn demonstrate(options: demo::Options) -> ExitCode {
    let mut out = io::stdout();
    let options = demo::Options { is_terminal: out.is_terminal(), ..options };
    match demo::run(options, &mut out) {
        Ok(demo::Ending::Complete) => ExitCode::SUCCESS,
        Ok(demo::Ending::Interrupted) => ExitCode::from(EXIT_INTERRUPTED),
        Err(error) => {
            eprintln!("bulkhead demo: {error}");
            ExitCode::from(if error.is_missing() { EXIT_UNAVAILABLE } else { EXIT_INTERNAL })
        }
    }
}
