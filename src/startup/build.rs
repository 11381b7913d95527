//! From a configuration to what runs: snapshots, pools, servers, identities and routes.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{
    StartError,
    outbox::{outbox, own_connections, relay_settings},
    statistics,
};
use crate::{
    auth::{Secret, Users, Verifier, tls},
    backend::{Server, number::Numbers, secret::LoginSecret, statements::Statements},
    catalog::Source,
    causal::progress::{LagBounds, Progress},
    config::{self, AuthMethod, Config, ListenOnGap, diff::Diff, keys},
    listen::{ListenLimits, Listeners, OnGap},
    metrics::Evictions,
    pool::{self, Gate, Pool, ServerPool},
    route::{PoolId, Routes},
    shared::{
        Limits, Process, Replicas, Snapshot, Workers,
        console::{Console, ToldKey},
        counters::Requests,
        identities::{Identities, Method},
    },
    sql::{Classifier, Custom, Glob, Rules, UnknownPreset},
    threads::Spawner,
    topology::Health,
};

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
    let mut rules = Rules::new(&jobs.presets, &jobs.schemas, &custom, pools)?;
    rules.worker_tags = config.workers.comment_tags.clone();
    Ok(rules)
}

/// What the configuration names and the disk holds. Read again by every reload, also where no key has changed.
#[derive(Debug)]
pub struct Files {
    /// The users of `auth.users_file`.
    pub users: Users,
}

impl Files {
    /// Reads all of them; blocks.
    pub fn read(config: &Config) -> Result<Self, StartError> {
        let users = match &config.auth.users_file {
            Some(path) => Users::load(path)?,
            None => Users::default(),
        };
        Ok(Self { users })
    }
}

/// A server, and the gate that all pools on it share.
type Guarded = (Arc<Server>, Arc<Gate>);

/// A configuration, and what it has been made into.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) config: Config,
    pub(crate) shared: Arc<Snapshot>,
    /// By their places in the configuration.
    pub(crate) servers: Vec<Guarded>,
}

/// A snapshot in the making, which nothing uses yet: dropped, it leaves no trace.
pub(crate) struct Draft {
    config: Config,
    shared: Snapshot,
    servers: Vec<Guarded>,
    /// Every pool on each of its servers, and what it is to be.
    adjustments: Vec<(Arc<ServerPool>, pool::Limits, Arc<Server>)>,
}

impl Draft {
    /// Makes a snapshot; what `before` has and the configuration leaves as it is, is taken over. `draining` are pools
    /// that were taken out earlier and still have something to do: they come back rather than have a double.
    pub(crate) fn new(
        config: Config,
        files: Files,
        before: Option<&Built>,
        draining: &[Arc<ServerPool>],
        spawner: &Spawner,
    ) -> Result<Self, StartError> {
        let servers = servers(&config, before)?;
        let earlier = before.map(|before| Arc::clone(&before.shared));
        let known: Vec<&Arc<ServerPool>> = earlier
            .iter()
            .flat_map(|shared| shared.pools.iter().flat_map(|pool| &pool.members))
            .chain(draining)
            .collect();
        let mut adjustments = Vec::new();
        let pools: Vec<Pool> = config
            .pools
            .iter()
            .map(|pool| pool_of(pool, &config, &servers, &known, spawner, &mut adjustments))
            .collect();
        let epoch = earlier.as_ref().map_or(1, |shared| shared.epoch + 1);
        let process =
            earlier.as_ref().map_or_else(|| process(&config, spawner), |shared| Arc::clone(&shared.process));
        let (classifier, classifier_epoch) = match before {
            Some(before) if judges_alike(&before.config, &config) => {
                (Arc::clone(&before.shared.classifier), before.shared.classifier_epoch)
            }
            _ => (Arc::new(classifier(&config, process.metrics.verdicts_evicted.clone())?), epoch),
        };
        let at_primary = primary_server(&config);
        let same_primary = before.filter(|before| {
            Arc::ptr_eq(&before.servers[primary_server(&before.config)].0, &servers[at_primary].0)
        });
        let requests = config
            .pools
            .iter()
            .map(|pool| {
                earlier.as_ref().and_then(|shared| requests_of(shared, &pool.name)).unwrap_or_default()
            })
            .collect();
        let routes = routes(&config);
        let reads = reads(&config);
        let bounds = LagBounds { max_lag: reads.max_lag, max_lag_bytes: reads.max_lag_bytes as u64 };
        let known = earlier.as_ref().map(|shared| &shared.health);
        let health = Health::new(&pools, (routes.primary, routes.replicas), &process.causal, bounds, known);
        let replicas = replicas(reads, progress(&pools, &routes, &health), weights(&config));
        let shared = Snapshot {
            health,
            epoch,
            acceptor: tls::acceptor(&config.listen.tls)?,
            limits: session_limits(&config.limits),
            identities: identities(&config, files)?,
            classifier,
            classifier_epoch,
            routes,
            pools,
            requests,
            workers: workers(&config),
            greetings: same_primary.map_or_else(Arc::default, |before| Arc::clone(&before.shared.greetings)),
            replicas,
            console: console(&config),
            outbox: outbox(&config, earlier.as_deref()),
            relay: relay_settings(&config, &rules(&config)?),
            process,
        };
        if let Some(earlier) = &earlier {
            obey(&shared.pools, &earlier.pools);
        }
        Ok(Self { config, shared, servers, adjustments })
    }

    /// The users that it knows.
    pub(crate) fn users(&self) -> &Users {
        &self.shared.identities.users
    }

    /// Carries it out: logins first, then pools, so that those who wait get what the new snapshot says. Returns the
    /// pools that nobody keeps yet as well.
    pub(crate) fn carry_out(mut self, before: Option<&Built>) -> (Built, Vec<Arc<ServerPool>>) {
        let identities = &mut self.shared.identities;
        if let Some(before) = before {
            identities.succeed(&before.shared.identities);
        }
        for (at, (server, (_, gate))) in self.config.servers.iter().zip(&self.servers).enumerate() {
            let here = self.config.pools.iter().filter(|pool| pool.servers.contains(&at));
            let of_pools = here.map(|pool| pool.max_connections).sum();
            let own = own_connections(&self.config, at);
            gate.set_places_max(server.max_connections.unwrap_or(of_pools + own), of_pools);
            gate.set_open_ended(server.max_connections.is_none());
        }
        let warm = identities.identity(&identities.url_database, &identities.url_user);
        let mut unkept = Vec::new();
        for (pool, limits, server) in self.adjustments {
            if pool.adjust(limits, &server, warm.as_ref()) {
                unkept.push(pool);
            }
        }
        let primary = primary_server(&self.config);
        let moved = |before: &Built| {
            let gate = &before.servers[primary_server(&before.config)].1;
            !Arc::ptr_eq(gate, &self.servers[primary].1)
        };
        if before.is_some_and(moved) {
            self.shared.catalogs.moved();
        }
        self.shared.listeners.set_limits(listen_limits(&self.config.limits));
        statistics::set_limits(&self.shared, &self.config);
        if let Some(identity) = &warm {
            self.shared.catalogs.keep_warm(identity);
        }
        let built = Built { config: self.config, shared: Arc::new(self.shared), servers: self.servers };
        (built, unkept)
    }
}

impl Built {
    /// Where the primary's pool and the catalogs' source are.
    pub(crate) fn catalog_source(&self) -> Source {
        let Routes { primary, jobs, jobs_elsewhere, .. } = self.shared.routes;
        let first = |pool: PoolId| Arc::clone(&self.shared.pools[usize::from(pool.0)].members[0]);
        Source {
            primary: first(primary),
            jobs: jobs.filter(|_| jobs_elsewhere).map(first),
            refresh: self.config.limits.catalog_refresh,
        }
    }
}

/// What lives as long as the program.
fn process(config: &Config, spawner: &Spawner) -> Arc<Process> {
    let limits = &config.limits;
    let statements = Statements::new(limits.verdict_cache, limits.prepared_bytes);
    Arc::new(Process::new(statements, Listeners::new(spawner.clone(), listen_limits(limits))))
}

/// What reads on replicas need.
fn reads(config: &Config) -> config::Reads {
    let pool = config.pools.iter().find(|pool| pool.name == "replicas");
    pool.map(|pool| pool.reads).unwrap_or_default()
}

fn replicas(reads: config::Reads, progress: Vec<Arc<Progress>>, weights: Vec<usize>) -> Replicas {
    let config::Reads { consistency, causal_wait, sample_interval, .. } = reads;
    Replicas { consistency, causal_wait, sample_interval, progress, weights }
}

/// The shares of reads of the servers of the replicas' pool.
fn weights(config: &Config) -> Vec<usize> {
    let pool = config.pools.iter().find(|pool| pool.name == "replicas");
    let servers = pool.into_iter().flat_map(|pool| &pool.servers);
    servers.map(|at| config.servers[*at].weight).collect()
}

/// How far each server of the replicas' pool is.
fn progress(pools: &[Pool], routes: &Routes, health: &Health) -> Vec<Arc<Progress>> {
    let members = routes.replicas.map(|replicas| pools[usize::from(replicas.0)].members.iter());
    members.into_iter().flatten().filter_map(|member| health.progress(member)).collect()
}

fn session_limits(limits: &config::Limits) -> Limits {
    Limits {
        max_clients: limits.max_clients,
        login_timeout: limits.login_timeout,
        orphan_timeout: limits.orphan_timeout,
        request_buffer: limits.request_buffer,
        request_buffer_total: limits.request_buffer_total,
        tcp_user_timeout: limits.tcp_user_timeout,
        prepared_per_client: limits.prepared_per_client,
        prepared_bytes_per_client: limits.prepared_bytes_per_client,
        prepared_per_backend: limits.prepared_per_backend,
        settings_per_client: limits.settings_per_client,
    }
}

/// Has pools obey what an operator has asked of those whose places they take.
fn obey(pools: &[Pool], earlier: &[Pool]) {
    for pool in pools {
        let Some(before) = earlier.iter().find(|before| before.name == pool.name) else { continue };
        let is_new = |member: &&Arc<ServerPool>| !before.members.iter().any(|old| Arc::ptr_eq(old, member));
        pool.members.iter().filter(is_new).for_each(|member| member.obey_as(&before.members[0]));
    }
}

/// The console's part of the configuration, and what it tells of all of it.
fn console(config: &Config) -> Console {
    let config::Console { databases, admin_users, stats_users, max_clients, pause_timeout, like } =
        &config.console;
    let keys = Diff::values(config).into_iter().map(|(name, value)| {
        let key = keys::find(&name);
        ToldKey {
            default: key.map_or("", |key| key.default).trim_matches('"').to_owned(),
            is_changeable: key.is_some_and(|key| key.change == keys::Change::Reload),
            name,
            value,
        }
    });
    Console {
        databases: databases.clone(),
        admin_users: admin_users.clone(),
        stats_users: stats_users.clone(),
        max_clients: *max_clients,
        pause_timeout: *pause_timeout,
        like: *like,
        names_metrics: config.metrics.pgbouncer_names,
        http_token: config.listen.http_token.clone(),
        keys: keys.collect(),
        address: config.listen.address,
        unix_socket_dir: config.listen.unix_socket_dir.clone(),
    }
}

fn workers(config: &Config) -> Workers {
    let config::Workers { application_names, users, job_window, .. } = &config.workers;
    Workers {
        application_names: application_names.iter().map(|glob| Glob::new(glob)).collect(),
        users: users.clone(),
        job_window: *job_window,
    }
}

fn listen_limits(limits: &config::Limits) -> ListenLimits {
    let on_gap = match limits.listen_on_gap {
        ListenOnGap::Disconnect => OnGap::Disconnect,
        ListenOnGap::Warn => OnGap::Warn,
    };
    ListenLimits { bytes_per_session: limits.notifications_per_client, on_gap }
}

fn classifier(config: &Config, evictions: Evictions) -> Result<Classifier, UnknownPreset> {
    let limits = &config.limits;
    Ok(Classifier::counting(rules(config)?, limits.verdict_cache, limits.statement_bytes, evictions))
}

/// Whether both configurations give every text the same verdict, remembered in as many places.
fn judges_alike(one: &Config, other: &Config) -> bool {
    let names =
        |config: &Config| -> Vec<String> { config.pools.iter().map(|pool| pool.name.clone()).collect() };
    let jobs = |config: &Config| config::Jobs { outbox: config::Outbox::default(), ..config.jobs.clone() };
    jobs(one) == jobs(other)
        // A hint's verdict has the position of its pool.
        && names(one) == names(other)
        && one.limits.verdict_cache == other.limits.verdict_cache
        && one.limits.statement_bytes == other.limits.statement_bytes
}

fn requests_of(shared: &Snapshot, name: &str) -> Option<Arc<Requests>> {
    let at = shared.pools.iter().position(|pool| pool.name == name)?;
    shared.requests.get(at).cloned()
}

pub(crate) fn connector(server: &config::Server) -> Result<tls::Connector, tls::Problem> {
    tls::connector(&server.tls, &format!("servers.{}.url", server.name))
}

/// The servers; one that has not changed is the same object, one that is reached otherwise at the same address keeps
/// its gate.
fn servers(config: &Config, before: Option<&Built>) -> Result<Vec<Guarded>, tls::Problem> {
    let numbers = before
        .and_then(|before| before.servers.first())
        .map_or_else(Arc::default, |(server, _)| Arc::clone(&server.numbers));
    let known = |name: &str| {
        let before = before?;
        let at = before.config.servers.iter().position(|server| server.name == name)?;
        Some((&before.config.servers[at], &before.servers[at]))
    };
    let server = |server: &config::Server| {
        // Reads the files that the URL names: their contents may be new where the URL is not.
        let mut made = server_of(server, &numbers, config.limits.tcp_user_timeout)?;
        if let Some((_, (old, _))) = known(&server.name) {
            made.traffic = Arc::clone(&old.traffic);
            if old.hosts == made.hosts && old.session_attrs == made.session_attrs {
                made.in_use = Arc::clone(&old.in_use);
            }
        }
        Ok(match known(&server.name) {
            Some((old, (same, gate)))
                if is_reached_alike(old, server)
                    && same.tls.is_alike(&made.tls)
                    && same.tcp_user_timeout == made.tcp_user_timeout =>
            {
                (Arc::clone(same), Arc::clone(gate))
            }
            Some((old, (_, gate))) if old.hosts == server.hosts => (Arc::new(made), Arc::clone(gate)),
            _ => (Arc::new(made), Arc::default()),
        })
    };
    config.servers.iter().map(server).collect()
}

/// Whether connections to both are made in the same way to the same address.
fn is_reached_alike(one: &config::Server, other: &config::Server) -> bool {
    // These two say how many and how patiently, not how.
    let bare = |server: &config::Server| config::Server {
        max_connections: None,
        weight: 1,
        connect_timeout: None,
        ..server.clone()
    };
    bare(one) == bare(other)
}

fn identities(config: &Config, files: Files) -> Result<Identities, StartError> {
    let Files { mut users } = files;
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
    Ok(Identities::new(method, users, secrets, url, config.databases.clone(), config.auth.reprove_after)?)
}

pub(crate) fn server_of(
    server: &config::Server,
    numbers: &Arc<Numbers>,
    tcp_user_timeout: Duration,
) -> Result<Server, tls::Problem> {
    let secret =
        server.password.as_ref().map(|text| LoginSecret::new(Verifier::Plain(Secret::new(text.clone()))));
    Ok(Server {
        name: server.name.clone(),
        hosts: server.hosts.clone(),
        session_attrs: server.session_attrs,
        tls: connector(server)?,
        user: server.user.clone(),
        secret,
        database: server.database.clone(),
        require_auth: server.require_auth.clone(),
        application_name: server.application_name.clone().filter(|name| !name.is_empty()),
        numbers: Arc::clone(numbers),
        traffic: Arc::default(),
        in_use: Arc::default(),
        tcp_user_timeout,
    })
}

fn pool_of(
    pool: &config::Pool,
    config: &Config,
    servers: &[Guarded],
    known: &[&Arc<ServerPool>],
    spawner: &Spawner,
    adjustments: &mut Vec<(Arc<ServerPool>, pool::Limits, Arc<Server>)>,
) -> Pool {
    let mut member = |at: &usize| {
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
            max_pinned: pool.max_pinned,
            pinned_idle_timeout: pool.pinned_idle_timeout,
            // Reads can go to the primary.
            fails_fast: pool.name == "replicas",
        };
        // The server's gate tells it from one of the same name at another address.
        let same = |known: &&&Arc<ServerPool>| known.name == pool.name && known.is_behind(gate);
        let member = known.iter().find(same).map_or_else(
            || {
                let (server, gate) = (Arc::clone(server), Arc::clone(gate));
                Arc::new(ServerPool::new(pool.name.clone(), server, gate, limits, spawner.clone()))
            },
            |known| Arc::clone(known),
        );
        adjustments.push((Arc::clone(&member), limits, Arc::clone(server)));
        member
    };
    Pool {
        name: pool.name.clone(),
        members: pool.servers.iter().map(&mut member).collect(),
        keeps_sessions: pool.mode == config::PoolMode::Session,
    }
}

pub(crate) fn primary_server(config: &Config) -> usize {
    config.servers.iter().position(|server| server.name == "primary").expect("validation asks for it")
}

pub(crate) fn routes(config: &Config) -> Routes {
    let named = |name: &str| config.pools.iter().position(|pool| pool.name == name);
    let id = |name: &str| named(name).map(|at| PoolId(at as u8));
    let first_server = |name: &str| named(name).map(|at| config.pools[at].servers[0]);
    Routes {
        primary: id("primary").expect("validation makes it"),
        replicas: id("replicas"),
        jobs: id("jobs"),
        workers: id("workers"),
        jobs_elsewhere: first_server("jobs").is_some_and(|jobs| Some(jobs) != first_server("primary")),
        defines_on_both: config.jobs.ddl_on_both,
    }
}
