//! CPU per transaction: `pgbench -S` in every protocol mode, with few and many clients on 20 backends.

use std::process::Command;

use crate::{
    Plan,
    contender::{Contender, Kind},
    median,
    support::{Login, Postgres, Role, programs},
};

const BACKENDS: usize = 20;

/// One run of pgbench.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Microseconds of the pooler's CPU for one transaction.
    cpu_us: f64,
    tps: f64,
    latency_ms: f64,
}

pub(crate) fn run(plan: &Plan) {
    let server = bench_server();
    let contenders: Vec<_> = plan.contenders.iter().map(|kind| kind.start(&server, BACKENDS)).collect();
    for contender in &contenders {
        for mode in plan.modes.iter().filter(|mode| can(contender, mode)) {
            pgbench(contender, mode, 64, 1);
        }
    }
    println!(
        "\nCPU per transaction, pgbench -S, {BACKENDS} backends, median of {} x {} s",
        plan.rounds, plan.seconds
    );
    println!("| mode | clients | | us/txn | ratio to PgBouncer | tps | latency ms |");
    println!("|---|---|---|---|---|---|---|");
    for mode in &plan.modes {
        for &clients in &plan.clients {
            let able: Vec<_> = contenders.iter().filter(|contender| can(contender, mode)).collect();
            print_cell(mode, clients, &able, &measure(plan, &able, mode, clients));
        }
    }
}

/// A server with pgbench's tables in memory.
pub(crate) fn bench_server() -> Postgres {
    let server = Postgres::builder(Role::Primary)
        .max_connections(200)
        .setting("shared_buffers", "512MB")
        .setting("max_wal_size", "4GB")
        .start();
    let status = Command::new(programs().path("pgbench"))
        .args(["--initialize", "--quiet", "--scale=10"])
        .arg(server.url(Login::Trust))
        .stderr(std::process::Stdio::null())
        .status()
        .expect("pgbench runs");
    assert!(status.success(), "pgbench --initialize failed");
    server
}

/// The samples of every contender, one a round.
fn measure(plan: &Plan, contenders: &[&Contender], mode: &str, clients: usize) -> Vec<Vec<Sample>> {
    let mut samples = vec![Vec::new(); contenders.len()];
    for round in 0..plan.rounds {
        let mut order: Vec<_> = (0..contenders.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            samples[index].push(pgbench(contenders[index], mode, clients, plan.seconds));
        }
    }
    samples
}

fn pgbench(contender: &Contender, mode: &str, clients: usize, seconds: u64) -> Sample {
    let before = contender.cpu_seconds();
    let output = Command::new(programs().path("pgbench"))
        .args(["--select-only", "--no-vacuum", &format!("--protocol={mode}"), &format!("--client={clients}")])
        .args([format!("--time={seconds}"), format!("--jobs={}", clients.min(2))])
        .arg(contender.url())
        .output()
        .expect("pgbench runs");
    let cpu = contender.cpu_seconds() - before;
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "pgbench through {} failed:\n{text}{errors}", contender.name());
    let number = |label: &str| -> f64 {
        let rest = text.lines().find_map(|line| line.strip_prefix(label));
        let word = rest.and_then(|rest| rest.split_whitespace().next());
        word.and_then(|word| word.parse().ok())
            .unwrap_or_else(|| panic!("pgbench says no `{label}`:\n{text}"))
    };
    let transactions = number("number of transactions actually processed: ");
    Sample {
        cpu_us: cpu / transactions * 1e6,
        tps: number("tps = "),
        latency_ms: number("latency average = "),
    }
}

fn can(contender: &Contender, mode: &str) -> bool {
    mode != "prepared" || contender.knows_prepared()
}

fn print_cell(mode: &str, clients: usize, contenders: &[&Contender], samples: &[Vec<Sample>]) {
    let baseline = contenders.iter().position(|contender| contender.kind() == Kind::PgBouncer);
    for (contender, own) in contenders.iter().zip(samples) {
        let middle = |value: fn(&Sample) -> f64| median(own.iter().map(value));
        let (mut cpu, mut ratio) = ("-".to_owned(), "-".to_owned());
        if contender.kind() != Kind::Direct {
            cpu = format!("{:.2}", middle(|sample| sample.cpu_us));
            if let Some(baseline) = baseline {
                let pairs = own.iter().zip(&samples[baseline]);
                ratio = format!("{:.2}", median(pairs.map(|(own, base)| own.cpu_us / base.cpu_us)));
            }
        }
        let (tps, latency) = (middle(|sample| sample.tps), middle(|sample| sample.latency_ms));
        println!("| {mode} | {clients} | {} | {cpu} | {ratio} | {tps:.0} | {latency:.3} |", contender.name());
    }
}
