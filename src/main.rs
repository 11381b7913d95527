//! The command line: serve, check a configuration, explain a statement.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is where the program talks to people")]

use std::{path::PathBuf, process::ExitCode};

use bulkhead::{app, config, sql, telemetry};
use clap::{Parser, Subcommand};

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
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let presets: Vec<&str> = sql::Rules::preset_names().collect();
    let config = match config::load(arguments.config.as_deref(), &config::process_environment, &presets) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match arguments.command {
        None => serve(&config),
        Some(Command::Check) => check(&config),
        Some(Command::Classify { sql }) => classify(&config, &sql),
    }
}

fn serve(config: &config::Config) -> ExitCode {
    telemetry::start();
    match app::run(config) {
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
