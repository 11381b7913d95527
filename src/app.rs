//! Building the program from its configuration, and running it.

use std::{io, sync::Arc, time::Duration};

use tokio::runtime::Runtime;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admin,
    auth::{AuthError, tls, users::UsersError},
    backend::{self, Credentials, Home, Identity},
    clock,
    config::Config,
    descriptors, listener,
    pool::Spawner,
    ports::Ports,
    reload::{Origin, Running},
    route::{Demand, Standing, Target},
    secrets,
    service::{self, Inherited},
    session::Live,
    shutdown::{self, Signals},
    sql::{Catalog, Custom, Rules, UnknownPreset, Verdict},
    upstream,
};

mod build;

pub use build::Files;
pub(crate) use build::{Built, Draft, primary_server, server_of};
use build::{connector, routes};

/// A command that reads the catalog waits no longer than this for its connection.
const CATALOG_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the program cannot run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port or a Unix socket cannot be listened on.
    #[error("cannot listen on {place} ({key}): {error}")]
    Listen {
        /// The address or path.
        place: String,
        /// The key of the configuration that names it.
        key: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// The service manager passed sockets that are of no use.
    #[error("a socket of the service manager cannot be used: {0}")]
    Inherited(io::Error),
    /// The users file is missing or wrong.
    #[error("{0}")]
    Users(#[from] UsersError),
    /// A preset that does not exist; validation finds it first.
    #[error("{0}")]
    Preset(#[from] UnknownPreset),
    /// A certificate or key is missing or wrong.
    #[error("{0}")]
    Tls(#[from] tls::Problem),
    /// No random bytes.
    #[error("{0}")]
    Auth(#[from] AuthError),
    /// Threads or signals could not be set up.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// The classification rules that a configuration asks for.
pub fn rules(config: &Config) -> Result<Rules, UnknownPreset> {
    let jobs = &config.jobs;
    let custom = Custom {
        schemas: jobs.rules.schemas.clone(),
        tables: jobs.rules.tables.clone(),
        functions: jobs.rules.functions.clone(),
        channels: jobs.rules.channels.clone(),
    };
    let pools: Vec<String> = config.pools.iter().map(|pool| pool.name.clone()).collect();
    Rules::new(&jobs.presets, &jobs.schemas, &custom, pools)
}

/// What is wrong with the certificates and keys that a configuration names.
pub fn check_certificates(config: &Config) -> Vec<tls::Problem> {
    let clients = tls::acceptor(&config.listen.tls).err();
    let servers = config.servers.iter().filter_map(|server| connector(server).err());
    clients.into_iter().chain(servers).collect()
}

/// Reads the primary's catalog on a connection of its own, as the URL's user.
pub fn read_catalog(config: &Config) -> Result<Catalog, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let server = &config.servers[primary_server(config)];
    let limit = server.connect_timeout.unwrap_or(CATALOG_TIMEOUT);
    let (user, database) = (server.user.clone(), server.database.clone());
    let identity = Arc::new(Identity::new(database, user, Credentials::of_url()));
    let server = Arc::new(server_of(server, &Arc::default()).map_err(|problem| problem.to_string())?);
    runtime.block_on(async {
        let connected = backend::connect::connect(&server, &identity, Home(0), limit).await;
        let mut backend = connected.map_err(|error| error.to_string())?;
        crate::server::read_catalog(&mut backend, 1).await
    })
}

/// Logs in to every server and compares what it finds with the configuration.
pub fn check_upstream(config: &Config) -> Result<upstream::Report, String> {
    let rules = rules(config).map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(|error| error.to_string())?.block_on(upstream::check(config, &rules)))
}

/// The pool, or the error, that a request of this one statement would get in a session of its own.
pub fn pool_for(config: &Config, verdict: Verdict) -> String {
    match routes(config).target(&Demand::of(verdict), Standing::default()) {
        Target::Pool(pool) => config.pools[usize::from(pool.0)].name.clone(),
        Target::Held | Target::Torn => {
            "none: job tables and application tables live on different servers".to_owned()
        }
    }
}

/// Checks what can be checked of a configuration besides its text: the files that it names. Blocks.
pub fn check(config: &Config) -> Result<(), StartError> {
    rules(config)?;
    Files::read(config)?;
    Ok(())
}

/// Runs until a signal ends it. `origin` is where the configuration came from, and is read again on SIGHUP.
pub fn run(config: Config, origin: Origin) -> Result<(), StartError> {
    // Before there are threads: it clears variables of the environment.
    let inherited = Inherited::take().map_err(StartError::Inherited)?;
    if let Some(shortage) = descriptors::shortage(&config, descriptors::raise_limit()) {
        tracing::warn!("{shortage}");
    }
    for exposed in secrets::exposed(&config, origin.path.as_deref()) {
        tracing::warn!("{exposed}");
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
    let ran = first.block_on(serve(config, origin, inherited, spawner, stop.clone()));
    stop.cancel();
    for thread in others {
        // A panic in a session's task does not end its thread; this only waits.
        let _ = thread.join();
    }
    ran
}

async fn serve(
    config: Config,
    origin: Origin,
    inherited: Inherited,
    spawner: Spawner,
    stop: CancellationToken,
) -> Result<(), StartError> {
    let mut signals = Signals::new()?;
    let ports = Ports::open(&config.listen, inherited)?;
    // Sessions are waited for at the end; what pools do for themselves, such as trying a server that is down, is not.
    let pools = Spawner { tracker: TaskTracker::new(), threads: Arc::clone(&spawner.threads) };
    let tasks = TaskTracker::new();
    let files = Files::read(&config)?;
    let mut running = Running::start(config, origin, files, pools.clone(), tasks.clone(), stop.clone())?;
    let live = running.live();
    let accepting = CancellationToken::new();
    tasks.spawn(watch_health(Arc::clone(&live), stop.clone()));
    tasks.spawn(service::keep_status(Arc::clone(&live), stop.clone()));
    tasks.spawn(service::feed_watchdog(spawner.clone(), stop.clone()));
    if let Some(http) = ports.http {
        tasks.spawn(admin::serve(http.into_std()?, Arc::clone(&live), spawner.clone(), stop.clone()));
    }
    let open = Arc::default();
    for listener in ports.clients {
        tracing::info!(address = listener.name(), pools = running.config().pools.len(), "ready for clients");
        let (open, live) = (Arc::clone(&open), Arc::clone(&live));
        tasks.spawn(listener::listen(listener, open, live, spawner.clone(), accepting.clone()));
    }
    service::ready();

    running.reload_until_end(&mut signals).await;
    let grace = running.config().listen.shutdown_grace;
    tracing::info!(?grace, "draining: no new clients, transactions may finish");
    service::stopping(grace);
    accepting.cancel();
    let shared = live.load();
    shared.drain();
    spawner.tracker.close();
    if !shutdown::drained(&spawner.tracker, grace, &mut signals).await {
        tracing::warn!(clients = shared.clients(), "clients are cut off");
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

/// Asks the servers how they are, again and again until `stop`; those of the snapshot that is in force.
async fn watch_health(live: Arc<Live>, stop: CancellationToken) {
    loop {
        let started = tokio::time::Instant::now();
        let shared = live.load();
        let identity = shared.url_identity();
        let pause = tokio::select! {
            // Not cancel safe for the backends, which are closed then: the program is stopping.
            pause = shared.health.check(identity.as_ref()) => pause,
            () = stop.cancelled() => return,
        };
        drop(shared);
        tokio::select! {
            // Cancel safe, both.
            () = tokio::time::sleep_until(started + pause) => {}
            () = stop.cancelled() => return,
        }
    }
}
