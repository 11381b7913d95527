//! What the demonstration shows, from its first line to its last.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::{
    Ending, Failure, Options,
    figures::{self, Figures, Jobs, grouped},
    load::{self, JOB, JOBS_PER_SECOND, RATE, Tally, USERS, WORKERS, WRITE_EVERY},
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

/// All of it. `ending` is complete once the table was shown.
pub(super) async fn tell(
    options: Options,
    setup: Setup<'_>,
    progress: &mut Progress<'_>,
    ending: &mut Ending,
) -> Result<(), Failure> {
    let seconds = options.seconds;
    progress.say(&introduction())?;
    progress.say(&format!(
        "1/5  starting a primary, its replica and a job database in {}",
        setup.folder.path().display()
    ))?;
    let mut servers = Servers::start(setup).await?;

    let mut one = Bulkhead::start(setup, &servers, Pools::One).await?;
    progress.say(&format!("2/5  users alone, through one pool of {CONNECTIONS} connections, {seconds} s"))?;
    let alone =
        phase(progress, &mut one, &mut servers, seconds, Load::Users, ["no workers", "one pool"]).await?;
    progress.say(&format!("3/5  users beside {WORKERS} workers, through the same pool, {seconds} s"))?;
    let beside =
        phase(progress, &mut one, &mut servers, seconds, Load::All, ["60 workers", "one pool"]).await?;
    drop(one);

    let mut found = Bulkhead::start(setup, &servers, Pools::Found).await?;
    progress.say(&format!(
        "4/5  the same, by the server's URL alone: the job tables are found and get a pool of their own, {seconds} s"
    ))?;
    let titles = ["60 workers", "pools by itself"];
    let by_itself = phase(progress, &mut found, &mut servers, seconds, Load::All, titles).await?;
    drop(found);

    let mut separate = Bulkhead::start(setup, &servers, Pools::Separate).await?;
    progress.say(&format!(
        "5/5  the same, through separate pools for writes, reads and jobs of {CONNECTIONS} connections together, \
         {seconds} s"
    ))?;
    let titles = ["60 workers", "a job database"];
    let apart = phase(progress, &mut separate, &mut servers, seconds, Load::All, titles).await?;

    progress.say(&format!(
        "\n{}\n{}",
        figures::table(&[alone, beside, by_itself, apart]),
        notes(&separate)
    ))?;
    *ending = Ending::Complete;
    if options.once {
        return Ok(());
    }
    progress.say(&invitation(setup, &separate))?;
    loop {
        sleep(WATCH).await;
        check(&mut separate, &mut servers)?;
    }
}

/// Who is there in a phase.
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
    seconds: u32,
    load: Load,
    title: [&'static str; 2],
) -> Result<Figures, Failure> {
    let tally = Arc::new(Tally::default());
    let (start, started) = watch::channel(None);
    let mut users = load::users(&bulkhead.url, &tally, &started);
    tally.wait_for_ready(USERS).await?;
    let mut workers = None;
    if load == Load::All {
        // Those that are worked on in the time before the start are few beside what the workers cannot reach.
        let jobs = JOBS_PER_SECOND * u64::from(seconds + 1);
        load::enqueue(&bulkhead.url, jobs).await.map_err(|error| Failure::Sql { at: "bulkhead", error })?;
        workers = Some(load::workers(&bulkhead.url, &tally));
        tally.wait_for_ready(USERS + WORKERS).await?;
        sleep(JOB * TURNS).await;
    }

    let before = tally.counts();
    let now = Instant::now();
    start.send_replace(Some(now));
    for second in 1..=seconds {
        sleep_until(now + Duration::from_secs(u64::from(second))).await;
        let counts = tally.counts();
        let jobs = if load == Load::All {
            format!(", {} jobs", grouped(counts.jobs - before.jobs))
        } else {
            String::new()
        };
        progress.moment(&format!(
            "{second} of {seconds} s: {} queries answered{jobs}",
            grouped(counts.queries)
        ))?;
        check(bulkhead, servers)?;
    }
    let (elapsed, counts) = (now.elapsed().as_secs_f64(), tally.counts());
    let latencies = tally.latencies();
    users.shutdown().await;
    if let Some(mut workers) = workers {
        workers.shutdown().await;
    }
    Ok(Figures {
        title,
        queries_per_second: latencies.len() as f64 / elapsed,
        latency_ms: figures::percentiles(latencies),
        errors: counts.errors - before.errors,
        jobs: (load == Load::All).then(|| Jobs {
            per_second: (counts.jobs - before.jobs) as f64 / elapsed,
            errors: counts.job_errors - before.job_errors,
        }),
        connections_max: CONNECTIONS,
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

fn notes(bulkhead: &Bulkhead) -> String {
    let requests = bulkhead.requests();
    let counts: Vec<String> =
        requests.iter().map(|(pool, count)| format!("{pool} {}", grouped(*count))).collect();
    format!(
        "  A query that waits for the one before counts from when it was due, as in pgbench --rate.\n  \
         Requests with separate pools, by Bulkhead's own count: {}.\n",
        counts.join(", ")
    )
}

fn invitation(setup: Setup<'_>, bulkhead: &Bulkhead) -> String {
    let Bulkhead { program, config, url, http, .. } = bulkhead;
    let (program, config) = (program.display(), config.display());
    let psql = setup.programs.path("psql");
    format!(
        "Bulkhead stays up with separate pools and without load. In another terminal:\n\n\
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
