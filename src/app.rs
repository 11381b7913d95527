//! Building the program from its configuration, and running it.

use std::{collections::HashMap, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, runtime::Runtime};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admin,
    auth::{AuthError, Secret, Users, Verifier, tls, users::UsersError},
    backend::{self, Home, Identity, Server, address::LoginSecret, connect::Numbers, statements::Statements},
    config::{self, AuthMethod, Config},
    listener,
    pool::{self, Gate, Pool, ServerPool, Spawner},
    route::{Demand, PoolId, Routes, Standing, Target},
    server::Catalogs,
    session::{
        self, Shared, Workers,
        identities::{Identities, Method},
        metrics::Metrics,
    },
    shutdown::{self, Signals},
    sql::{Catalog, Classifier, Custom, Glob, Rules, UnknownPreset, Verdict},
};

/// A command that reads the catalog waits no longer than this for its connection.
const CATALOG_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the program cannot run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port cannot be listened on.
    #[error("cannot listen on {address} ({key}): {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The key of the configuration that names it.
        key: &'static str,
        /// What the system said.
        error: io::Error,
    },
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

fn connector(server: &config::Server) -> Result<tls::Connector, tls::Problem> {
    tls::connector(&server.tls, &format!("servers.{}.url", server.name))
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
    let identity =
        Arc::new(Identity { database, user, secret: None, is_url_user: true, is_url_database: true });
    let server = Arc::new(server_of(server, &Arc::default()).map_err(|problem| problem.to_string())?);
    runtime.block_on(async {
        let connected = backend::connect::connect(&server, &identity, Home(0), limit).await;
        let mut backend = connected.map_err(|error| error.to_string())?;
        crate::server::read_catalog(&mut backend, 1).await
    })
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

/// Runs until a signal ends it.
pub fn run(config: &Config) -> Result<(), StartError> {
    let mut runtimes: Vec<Runtime> = (0..config.listen.threads.max(1))
        .map(|_| {
            // Sockets are asked for news when everybody ready has been served: larger batches, fewer system calls.
            tokio::runtime::Builder::new_current_thread().enable_all().event_interval(512).build()
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
    let ran = first.block_on(serve(config, spawner, stop.clone()));
    stop.cancel();
    for thread in others {
        // A panic in a session's task does not end its thread; this only waits.
        let _ = thread.join();
    }
    ran
}

async fn serve(config: &Config, spawner: Spawner, stop: CancellationToken) -> Result<(), StartError> {
    let mut signals = Signals::new()?;
    let clients = bind(config.listen.address, "listen.address")?;
    let http = match config.listen.http {
        Some(address) => Some(bind(address, "listen.http")?),
        None => None,
    };
    // Sessions are waited for at the end; what pools do for themselves, such as trying a server that is down, is not.
    let pools = Spawner { tracker: TaskTracker::new(), threads: Arc::clone(&spawner.threads) };
    let (shared, keepers) = build(config, &pools)?;
    let accepting = CancellationToken::new();
    let tasks = TaskTracker::new();
    for keeper in keepers {
        tasks.spawn(pool::keep(keeper.pool, keeper.warm, stop.clone()));
    }
    let primary = Arc::clone(&shared.pools[usize::from(shared.routes.primary.0)].members[0]);
    tasks.spawn(Arc::clone(&shared.catalogs).keep(primary, config.limits.catalog_refresh, stop.clone()));
    if let Some(http) = http {
        tasks.spawn(admin::serve(http, Arc::clone(&shared), stop.clone()));
    }
    tasks.spawn(listener::listen(clients, Arc::clone(&shared), spawner.clone(), accepting.clone()));
    tracing::info!(address = %config.listen.address, pools = config.pools.len(), "ready for clients");

    signals.next().await;
    tracing::info!(grace = ?config.listen.shutdown_grace, "draining: no new clients, transactions may finish");
    accepting.cancel();
    shared.drain();
    spawner.tracker.close();
    if !shutdown::drained(&spawner.tracker, config.listen.shutdown_grace, &mut signals).await {
        tracing::warn!(clients = shared.clients(), "clients are cut off");
    }
    stop.cancel();
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

fn bind(address: SocketAddr, key: &'static str) -> Result<TcpListener, StartError> {
    let listener = || {
        let socket = if address.is_ipv4() {
            tokio::net::TcpSocket::new_v4()
        } else {
            tokio::net::TcpSocket::new_v6()
        }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(4096)
    };
    listener().map_err(|error| StartError::Listen { address, key, error })
}

/// A server pool that wants a keeper.
struct Kept {
    pool: Arc<ServerPool>,
    warm: Option<Arc<Identity>>,
}

fn build(config: &Config, spawner: &Spawner) -> Result<(Arc<Shared>, Vec<Kept>), StartError> {
    let identities = identities(config)?;
    let numbers = Arc::new(Numbers::default());
    let servers: Vec<(Arc<Server>, Arc<Gate>)> = config
        .servers
        .iter()
        .map(|server| Ok((Arc::new(server_of(server, &numbers)?), Arc::default())))
        .collect::<Result<_, tls::Problem>>()?;
    let pools: Vec<Pool> = config.pools.iter().map(|pool| pool_of(pool, config, &servers, spawner)).collect();
    let routes = routes(config);
    let warm = identities.identity(&identities.url_database, &identities.url_user);
    let keepers = pools
        .iter()
        .flat_map(|pool| &pool.members)
        .map(|member| Kept { pool: Arc::clone(member), warm: warm.clone() })
        .collect();
    let catalogs = Arc::new(Catalogs::default());
    if let Some(identity) = &warm {
        // Read before the first client asks.
        catalogs.of(identity);
    }
    let limits = &config.limits;
    let metrics = Metrics {
        requests: pools.iter().map(|_| session::metrics::Requests::default()).collect(),
        ..Metrics::default()
    };
    let shared = Shared {
        limits: session::Limits {
            max_clients: limits.max_clients,
            login_timeout: limits.login_timeout,
            request_buffer: limits.request_buffer,
            prepared_per_client: limits.prepared_per_client,
            prepared_per_backend: limits.prepared_per_backend,
        },
        acceptor: tls::acceptor(&config.listen.tls)?,
        identities,
        classifier: Classifier::new(rules(config)?, limits.verdict_cache, limits.statement_bytes),
        routes,
        pools,
        catalogs,
        statements: Statements::new(limits.verdict_cache),
        cancels: Arc::default(),
        workers: Workers {
            application_names: config.workers.application_names.iter().map(|glob| Glob::new(glob)).collect(),
            users: config.workers.users.clone(),
        },
        metrics: Arc::new(metrics),
        welcomes: session::Welcomes::default(),
        draining: CancellationToken::new(),
        is_draining: std::sync::atomic::AtomicBool::new(false),
    };
    Ok((Arc::new(shared), keepers))
}

fn identities(config: &Config) -> Result<Identities, StartError> {
    let mut users = match &config.auth.users_file {
        Some(path) => Users::load(path)?,
        None => Users::default(),
    };
    let primary = &config.servers[primary_server(config)];
    let method = match config.auth.method {
        AuthMethod::ScramSha256 => Method::ScramSha256,
        AuthMethod::Md5 => Method::Md5,
        AuthMethod::Trust => Method::Trust,
    };
    if users.get(&primary.user).is_none() {
        let password = Secret::new(primary.password.clone().unwrap_or_default());
        users.insert(&primary.user, Verifier::Plain(password));
    }
    let secrets: HashMap<String, Arc<LoginSecret>> = users
        .iter()
        .map(|(name, user)| (name.to_owned(), Arc::new(LoginSecret::new(user.verifier().clone()))))
        .collect();
    let url = (primary.user.clone(), primary.database.clone());
    Ok(Identities::new(method, users, secrets, url, config.databases.clone())?)
}

fn server_of(server: &config::Server, numbers: &Arc<Numbers>) -> Result<Server, tls::Problem> {
    let secret =
        server.password.as_ref().map(|text| LoginSecret::new(Verifier::Plain(Secret::new(text.clone()))));
    Ok(Server {
        name: server.name.clone(),
        host: server.host.clone(),
        port: server.port,
        tls: connector(server)?,
        user: server.user.clone(),
        secret,
        database: server.database.clone(),
        numbers: Arc::clone(numbers),
    })
}

fn pool_of(
    pool: &config::Pool,
    config: &Config,
    servers: &[(Arc<Server>, Arc<Gate>)],
    spawner: &Spawner,
) -> Pool {
    let member = |at: &usize| {
        let (server, gate) = &servers[*at];
        let limits = pool::Limits {
            max_connections: pool.max_connections,
            min_connections: pool.min_connections,
            max_waiting: pool.max_waiting,
            wait_timeout: pool.wait_timeout,
            idle_timeout: pool.idle_timeout,
            max_lifetime: pool.max_lifetime,
            connect_timeout: config.servers[*at].connect_timeout.unwrap_or(pool.connect_timeout),
            check_after: pool.check_after,
            close_timeout: pool.close_timeout,
            // Reads can go to the primary.
            fails_fast: pool.name == "replicas",
        };
        Arc::new(ServerPool::new(
            pool.name.clone(),
            Arc::clone(server),
            Arc::clone(gate),
            limits,
            spawner.clone(),
        ))
    };
    Pool { name: pool.name.clone(), members: pool.servers.iter().map(member).collect() }
}

fn primary_server(config: &Config) -> usize {
    config.servers.iter().position(|server| server.name == "primary").expect("validation asks for it")
}

fn routes(config: &Config) -> Routes {
    let named = |name: &str| config.pools.iter().position(|pool| pool.name == name);
    let id = |name: &str| named(name).map(|at| PoolId(at as u8));
    let first_server = |name: &str| named(name).map(|at| config.pools[at].servers[0]);
    Routes {
        primary: id("primary").expect("validation makes it"),
        replicas: id("replicas"),
        jobs: id("jobs"),
        workers: id("workers"),
        jobs_elsewhere: first_server("jobs").is_some_and(|jobs| Some(jobs) != first_server("primary")),
    }
}
