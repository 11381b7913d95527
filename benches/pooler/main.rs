//! What the proxy costs, beside PgBouncer and no pooler at all: CPU per transaction, memory per idle client, and the
//! latency of users beside workers. `make bench` runs it; it takes about six minutes.
//!
//! How it measures, and why so:
//! - CPU time is read from `/proc/PID/stat` (user + system, all threads) around runs of `pgbench`, so it does not
//!   matter how busy the machine's cores are with pgbench and Postgres; throughput and latency do depend on that.
//! - Every server leads a session of its own: Linux shares CPU time out among sessions (autogroup), and a proxy in
//!   the session of its load looks up to a fifth more expensive than it is.
//! - Contenders take turns within a round, in changing order, and the ratio is the median of the rounds' ratios:
//!   a machine that slows down slows all of them.
//! - Backends are opened and have touched the table before the first round.
//! - Nobody authenticates (trust), or the hashing at connect would be measured.
//!
//! From the environment: `BENCH_PARTS` (cpu,memory,beside), `BENCH_CONTENDERS` (direct,pgbouncer,bulkhead),
//! `BENCH_MODES` (simple,extended,prepared), `BENCH_CLIENTS` (1,16,64), `BENCH_ROUNDS` (4), `BENCH_SECONDS` (2).
#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]

mod beside;
mod contender;
mod cpu;
mod memory;
#[path = "../../tests/it/support/mod.rs"]
mod support;

use std::{env, str::FromStr};

use contender::Kind;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What is measured, from the environment.
struct Plan {
    parts: Vec<String>,
    contenders: Vec<Kind>,
    modes: Vec<String>,
    clients: Vec<usize>,
    rounds: usize,
    seconds: u64,
}

fn main() {
    let plan = Plan::from_environment();
    allow_many_files();
    println!("{}", support::programs().version);
    if plan.has("cpu") {
        cpu::run(&plan);
    }
    if plan.has("memory") {
        memory::run(&plan);
    }
    if plan.has("beside") {
        beside::run(&plan);
    }
}

impl Plan {
    fn from_environment() -> Self {
        Self {
            parts: list("BENCH_PARTS", "cpu,memory,beside"),
            contenders: list("BENCH_CONTENDERS", "direct,pgbouncer,bulkhead"),
            modes: list("BENCH_MODES", "simple,extended,prepared"),
            clients: list("BENCH_CLIENTS", "1,16,64"),
            rounds: number("BENCH_ROUNDS", 4),
            seconds: number("BENCH_SECONDS", 2),
        }
    }

    fn has(&self, part: &str) -> bool {
        self.parts.iter().any(|name| name == part)
    }
}

fn list<T: FromStr>(variable: &str, default: &str) -> Vec<T> {
    let text = env::var(variable).unwrap_or_else(|_| default.to_owned());
    let parse =
        |word: &str| word.trim().parse().unwrap_or_else(|_| panic!("{variable}: `{word}` is not known"));
    text.split(',').map(parse).collect()
}

fn number<T: FromStr>(variable: &str, default: T) -> T {
    env::var(variable)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable}: {text} is no number")))
}

/// Thousands of clients need as many files, here and in the poolers, which inherit the limit.
fn allow_many_files() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .expect("a soft limit may be raised to the hard one");
}

/// The middle value; of two, their mean.
fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}
