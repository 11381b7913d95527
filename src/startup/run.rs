//! Building the program from its configuration, and running it.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::runtime::Runtime;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    StartError,
    build::Files,
    descriptors,
    ports::Ports,
    reload::{self, Origin, Running},
    service::{self, Inherited},
    signals::{self, Signals},
    telemetry::LogControl,
};
use crate::{
    admin::{self, Events},
    clock,
    config::Config,
    door::accept,
    outbox::Relay,
    route::PoolId,
    shared::{Current, Snapshot, averages, orders::End, recent},
    socket::silence,
    threads::Spawner,
};

/// How often a changed `limits.tcp_user_timeout` is noticed while it is zero.
const ROUND_WITHOUT_LIMIT: Duration = Duration::from_secs(5);

/// Sessions that hold no backend are looked at this much more rarely than those that do.
const IDLE_LOOKS: u32 = 4;

/// After this it is looked again whether servers can be asked, if there were too many identities.
const PAUSE_WITHOUT_IDENTITY: Duration = Duration::from_secs(2);

/// Clients that are cut off have this long to be told.
const FAREWELL: Duration = Duration::from_millis(500);

/// Runs until a signal ends it. `origin` is where the configuration came from, and is read again on SIGHUP; `log` is
/// what changes the log, `events` what keeps its last lines.
pub fn run(
    mut config: Config,
    origin: Origin,
    (log, events): (LogControl, Arc<Events>),
) -> Result<(), StartError> {
    // Before there are threads: it clears variables of the environment.
    let inherited = Inherited::take().map_err(StartError::Inherited)?;
    let shortage = descriptors::fit(&mut config, descriptors::raise_limit());
    let warned = reload::warnings(&config, &origin, shortage);
    for warning in &warned {
        tracing::warn!("{warning}");
    }
    if rustix::process::geteuid().is_root() {
        tracing::warn!("running as root, which is not needed: another user cannot do as much harm");
    }
    let mut runtimes: Vec<Runtime> = (0..config.listen.threads.max(1))
        .map(|_| {
            // Sockets are asked for news when everybody ready has been served: larger batches, fewer system calls.
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_all().event_interval(512).on_thread_unpark(|| {
                clock::tick();
            });
            builder.build()
        })
        .collect::<io::Result<_>>()?;
    let tracker = TaskTracker::new();
    let threads = runtimes.iter().map(|runtime| runtime.handle().clone()).collect();
    let spawner = Spawner { tracker, threads };
    let stop = CancellationToken::new();

    let first = runtimes.remove(0);
    let others: Vec<_> = runtimes
        .into_iter()
        .map(|runtime| {
            let stop = stop.clone();
            std::thread::spawn(move || runtime.block_on(stop.cancelled()))
        })
        .collect();
    let ran =
        first.block_on(serve((config, origin, log), warned, inherited, (spawner, events), stop.clone()));
    stop.cancel();
    for thread in others {
        // A panic in a session's task does not end its thread; this only waits.
        let _ = thread.join();
    }
    ran
}

/// Serves by a configuration, of which this was warned.
async fn serve(
    (config, origin, log): (Config, Origin, LogControl),
    warned: Vec<String>,
    inherited: Inherited,
    (spawner, events): (Spawner, Arc<Events>),
    stop: CancellationToken,
) -> Result<(), StartError> {
    let mut signals = Signals::new()?;
    let ports = Ports::open(&config.listen, inherited)?;
    // Sessions are waited for at the end; what pools do for themselves, such as trying a server that is down, is not.
    let pools = Spawner { tracker: TaskTracker::new(), threads: Arc::clone(&spawner.threads) };
    let tasks = TaskTracker::new();
    let files = Files::read(&config)?;
    let mut running =
        Running::start((config, origin, log), files, pools.clone(), tasks.clone(), stop.clone())?;
    running.has_warned(warned);
    let current = running.current();
    let accepting = CancellationToken::new();
    tasks.spawn(watch_health(Arc::clone(&current), stop.clone()));
    tasks.spawn(relay_jobs(Arc::clone(&current), stop.clone()));
    tasks.spawn(call_sessions(Arc::clone(&current), stop.clone()));
    tasks.spawn(keep_averages(Arc::clone(&current), stop.clone()));
    tasks.spawn(keep_recent(Arc::clone(&current), stop.clone()));
    tasks.spawn(service::keep_status(Arc::clone(&current), stop.clone()));
    tasks.spawn(service::feed_watchdog(spawner.clone(), stop.clone()));
    if let Some(http) = ports.http {
        let told = (Arc::clone(&current), events);
        tasks.spawn(admin::serve(http.into_std()?, told, spawner.clone(), stop.clone()));
    }
    let open = Arc::default();
    for listener in ports.clients {
        tracing::info!(address = listener.name(), pools = running.config().pools.len(), "ready for clients");
        let (open, current) = (Arc::clone(&open), Arc::clone(&current));
        tasks.spawn(accept::listen(listener, open, current, spawner.clone(), accepting.clone()));
    }
    service::ready();

    let how = running.reload_until_end(&mut signals).await;
    let grace = if how == End::Now { Duration::ZERO } else { running.config().listen.shutdown_grace };
    service::stopping(grace);
    accepting.cancel();
    let shared = current.load();
    if how == End::Left {
        tracing::info!(clients = shared.clients(), "no new clients; waiting until all have left");
        signals::left(&shared, &mut signals).await;
    }
    tracing::info!(?grace, "draining: no new clients, transactions may finish");
    shared.drain();
    spawner.tracker.close();
    if !signals::drained(&spawner.tracker, grace, &mut signals).await {
        tracing::warn!(clients = shared.clients(), "clients are cut off");
        shared.cut_off();
        // Long enough to tell them; who waits for something else than its client or server is not told.
        let _ = tokio::time::timeout(FAREWELL, spawner.tracker.wait()).await;
    }
    stop.cancel();
    shared.listeners.stop();
    tasks.close();
    pools.tracker.close();
    // Idle backends say goodbye; whoever does not hear it is left behind.
    let goodbye = async {
        tasks.wait().await;
        pools.tracker.wait().await;
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), goodbye).await;
    Ok(())
}

/// Has sessions look now and then at whether their peers still acknowledge what they are sent, and at once at whether a
/// server has gone over to another host.
async fn call_sessions(current: Arc<Current>, stop: CancellationToken) {
    let mut looks = 0_u32;
    loop {
        let shared = current.load();
        let limit = shared.limits.tcp_user_timeout;
        let pause = if limit.is_zero() { ROUND_WITHOUT_LIMIT } else { silence::pause(limit) };
        let numbers = shared.health.numbers();
        drop(shared);
        let moved = async {
            match &numbers {
                Some(numbers) => numbers.moved.notified().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // Cancel safe: a notification that is not consumed stays with the Notify.
            () = moved => {
                let shared = current.load();
                shared.look(false);
                shared.listeners.look();
            }
            () = tokio::time::sleep(pause) => {
                looks = looks.wrapping_add(1);
                if !limit.is_zero() {
                    // Who holds no backend keeps nobody else from anything.
                    current.load().look(looks.is_multiple_of(IDLE_LOOKS));
                }
            }
            () = stop.cancelled() => return,
        }
    }
}

/// Notes at the end of each period what pools did in it.
async fn keep_averages(current: Arc<Current>, stop: CancellationToken) {
    loop {
        let shared = current.load();
        shared.averages.note(shared.pool_totals().map(|(name, totals)| (name.to_owned(), totals)).collect());
        drop(shared);
        tokio::select! {
            // Cancel safe.
            () = tokio::time::sleep(averages::PERIOD) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Notes every few seconds what was refused up to then.
async fn keep_recent(current: Arc<Current>, stop: CancellationToken) {
    loop {
        let shared = current.load();
        shared.recent.note(Instant::now(), shared.tally());
        drop(shared);
        tokio::select! {
            // Cancel safe.
            () = tokio::time::sleep(recent::NOTE_EVERY) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Moves jobs from the primary to the job database until `stop`, as the snapshot that is in force says.
async fn relay_jobs(current: Arc<Current>, stop: CancellationToken) {
    loop {
        let shared = current.load();
        let relay = async {
            match relay_of(&shared) {
                Some(relay) => relay.run().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // Cancel safe: what is not committed on both sides is done again by the next one.
            () = relay => {}
            () = current.replaced(&shared) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// The relay that the snapshot asks for.
fn relay_of(shared: &Snapshot) -> Option<Relay> {
    let (outbox, settings, jobs) = (shared.outbox.as_ref()?, shared.relay.as_ref()?, shared.routes.jobs?);
    let member = |pool: PoolId| shared.pools[usize::from(pool.0)].members.first().map(Arc::clone);
    Some(Relay::new(Arc::clone(outbox), settings.clone(), member(shared.routes.primary)?, member(jobs)?))
}

/// Asks the servers how they are, again and again until `stop`; those of the snapshot that is in force.
async fn watch_health(current: Arc<Current>, stop: CancellationToken) {
    loop {
        let shared = current.load();
        let identity = shared.url_identity();
        let watch = async {
            match &identity {
                Some(identity) => shared.health.watch(identity, shared.replicas.sample_interval).await,
                // There are too many of them at the moment.
                None => tokio::time::sleep(PAUSE_WITHOUT_IDENTITY).await,
            }
        };
        tokio::select! {
            // Cancel safe but for a pool's connection, which is closed then.
            () = watch => {}
            () = current.replaced(&shared) => {}
            () = stop.cancelled() => return,
        }
    }
}
