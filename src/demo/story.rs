//! What the demonstration shows, from its first line to its last.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::{
    Ending, Failure, Options,
    figures::{self, Column, Figures, Jobs, grouped},
    load::{self, JOB, JOBS_PER_SECOND, RATE, Tally, USERS, WORKERS, WRITE_EVERY, Workers},
    machines::{Machine, Machines},
    postgres::{Servers, Setup, within},
    progress::Progress,
    proxy::{Bulkhead, CONNECTIONS, Pools},
};

/// All clients are connected after this, or something is wrong.
const CLIENTS_TIMEOUT: Duration = Duration::from_secs(60);
/// How often it is looked whether all servers are still there.
const WATCH: Duration = Duration::from_millis(500);
/// Workers start at the same moment; after so many of their jobs they are out of step.
const TURNS: u32 = 3;

/// A set-up that is measured.
struct SetUp {
    title: [&'static str; 2],
    load: Load,
    pools: Pools,
    servers: u32,
}

const SET_UPS: [SetUp; 4] = [
    SetUp { title: ["no workers", "one pool"], load: Load::Users, pools: Pools::One, servers: 1 },
    SetUp { title: ["60 workers", "one pool"], load: Load::All, pools: Pools::One, servers: 1 },
    SetUp { title: ["60 workers", "pools by itself"], load: Load::All, pools: Pools::Found, servers: 1 },
    SetUp { title: ["60 workers", "a job database"], load: Load::All, pools: Pools::Apart, servers: 2 },
];

/// All of it. `ending` is complete once the table was shown.
pub(super) async fn tell(
    options: Options,
    setup: Setup<'_>,
    progress: &mut Progress<'_>,
    ending: &mut Ending,
) -> Result<(), Failure> {
    progress.say(&introduction())?;
    let folder = setup.folder.path().display();
    progress.say(&format!("starting a primary, its replica and a job database in {folder}"))?;
    let mut servers = Servers::start(setup).await?;
    let table = measure(options, setup, progress, &mut servers).await?;
    progress.say(&table)?;
    *ending = Ending::Complete;
    if options.once {
        return Ok(());
    }
    let mut whole = Bulkhead::start(setup, &servers, Pools::Whole).await?;
    progress.say(&invitation(setup, &whole))?;
    loop {
        sleep(WATCH).await;
        check(&mut whole, &mut servers)?;
    }
}

/// Measures all set-ups in turn, again and again, and gives the table. Each run begins with another one, so that what
/// changes in time is shared out among them.
async fn measure(
    options: Options,
    setup: Setup<'_>,
    progress: &mut Progress<'_>,
    servers: &mut Servers,
) -> Result<String, Failure> {
    let Options { seconds, runs, .. } = options;
    let mut columns = SET_UPS.map(|of| Column {
        title: of.title,
        runs: Vec::new(),
        servers: of.servers,
        connections_max: CONNECTIONS,
    });
    let mut requests = BTreeMap::new();
    for run in 1..=runs {
        progress.say(&format!("run {run} of {runs}: {} set-ups, {seconds} s each", SET_UPS.len()))?;
        for turn in 0..SET_UPS.len() {
            let at = (turn + run as usize - 1) % SET_UPS.len();
            let of = &SET_UPS[at];
            let mut bulkhead = Bulkhead::start(setup, servers, of.pools).await?;
            let figures = phase(progress, &mut bulkhead, servers, (setup.machines, seconds), of).await?;
            columns[at].runs.push(figures);
            if of.pools == Pools::Apart {
                requests = bulkhead.requests();
            }
        }
    }
    Ok(format!("\n{}\n{}", figures::table(&columns), notes(setup.machines, runs, &requests)))
}

/// Who is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    Users,
    All,
}

/// Lets the clients connect and get into their stride, then measures.
async fn phase(
    progress: &mut Progress<'_>,
    bulkhead: &mut Bulkhead,
    servers: &mut Servers,
    (machines, seconds): (&Machines, u32),
    set_up: &SetUp,
) -> Result<Figures, Failure> {
    // The users are on this thread.
    let _here = machines.enter(Machine::Users);
    let tally = Arc::new(Tally::default());
    let (start, started) = watch::channel(None);
    let mut users = load::users(&bulkhead.url, &tally, &started);
    tally.wait_for_ready(USERS).await?;
    let mut workers = None;
    if set_up.load == Load::All {
        // Those that are worked on in the time before the start are few beside what the workers cannot reach.
        let jobs = JOBS_PER_SECOND * u64::from(seconds + 1);
        load::enqueue(&bulkhead.url, jobs).await.map_err(|error| Failure::Sql { at: "bulkhead", error })?;
        workers = Some(Workers::start(&bulkhead.url, &tally, machines)?);
        tally.wait_for_ready(USERS + WORKERS).await?;
        sleep(JOB * TURNS).await;
    }

    let before = tally.counts();
    let now = Instant::now();
    start.send_replace(Some(now));
    for second in 1..=seconds {
        sleep_until(now + Duration::from_secs(u64::from(second))).await;
        let counts = tally.counts();
        let jobs = workers.as_ref().map(|_| format!(", {} jobs", grouped(counts.jobs - before.jobs)));
        progress.moment(&format!(
            "{}: {second} of {seconds} s, {} queries answered{}",
            set_up.title.join(", "),
            grouped(counts.queries),
            jobs.unwrap_or_default()
        ))?;
        check(bulkhead, servers)?;
    }
    let (elapsed, counts) = (now.elapsed().as_secs_f64(), tally.counts());
    let latencies = tally.latencies();
    users.shutdown().await;
    let jobs = workers.map(|_| Jobs {
        per_second: (counts.jobs - before.jobs) as f64 / elapsed,
        errors: counts.job_errors - before.job_errors,
    });
    Ok(Figures {
        queries_per_second: latencies.len() as f64 / elapsed,
        latency_ms: figures::percentiles(latencies),
        errors: counts.errors - before.errors,
        jobs,
    })
}

fn check(bulkhead: &mut Bulkhead, servers: &mut Servers) -> Result<(), Failure> {
    if bulkhead.has_ended() {
        return Err(Failure::Died("bulkhead"));
    }
    servers.ended().map_or(Ok(()), |name| Err(Failure::Died(name)))
}

impl Tally {
    async fn wait_for_ready(&self, clients: u32) -> Result<(), Failure> {
        let what = format!("the load of {clients} clients");
        within(CLIENTS_TIMEOUT, &what, async || {
            Ok((self.ready.load(Ordering::Relaxed) >= u64::from(clients)).then_some(()))
        })
        .await
    }
}

fn introduction() -> String {
    format!(
        "{USERS} users send {} queries a second, one in {WRITE_EVERY} a write. {WORKERS} workers do background jobs over the \
         same URL:\neach takes a job as Oban does, works {} ms inside its transaction, completes it, and takes the \
         next.\n",
        grouped(u64::from(RATE)),
        JOB.as_millis()
    )
}

fn notes(machines: &Machines, runs: u32, requests: &BTreeMap<String, u64>) -> String {
    let counts: Vec<String> =
        requests.iter().map(|(pool, count)| format!("{pool} {}", grouped(*count))).collect();
    format!(
        "  Each figure is the median of {runs} runs, errors are all that there were.\n  {}\n  \
         A query that waits for the one before counts from when it was due, as in pgbench --rate.\n  \
         Requests beside a job database in the last run, by Bulkhead's own count: {}.\n",
        machines.words(),
        counts.join(", ")
    )
}

fn invitation(setup: Setup<'_>, bulkhead: &Bulkhead) -> String {
    let Bulkhead { program, config, url, http, .. } = bulkhead;
    let (program, config) = (program.display(), config.display());
    let psql = setup.programs.path("psql");
    format!(
        "Bulkhead stays up with pools for writes, reads on the replica and jobs, and without load. In another terminal:\n\n\
         as an application connects     {psql} {url}\n\
         where a statement goes, why    {program} --config {config} classify 'SELECT count(*) FROM accounts'\n\
         who waits for what, live       http://{http}/ in a browser\n\
         what it counts                 curl http://{http}/metrics\n\
         change its configuration       edit {config}, then: kill -HUP {pid}\n\n\
         Ctrl-C ends everything and removes {folder}.",
        psql = psql.display(),
        pid = bulkhead.pid(),
        folder = setup.folder.path().display(),
    )
}
