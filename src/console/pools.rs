//! `SHOW POOLS`, `DATABASES`, `USERS` and `LISTS`: what in PgBouncer is a database is a pool here, since that is what
//! has a bound, can be paused and is counted. A row of `POOLS` is a pool and a user, with all of that user's databases.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::Ordering,
    time::Duration,
};

use super::table::{Columns, Rows, Value, all};
use crate::{
    pool::{Figures, Pool},
    shared::{
        Snapshot,
        cancels::{Activity, Seen},
        card::Purpose,
        connections::Connections,
    },
};

pub(super) fn pools_columns() -> Columns {
    Columns::new(
        "ssiiiiiiiiiiiiiss",
        &[
            "database",
            "user",
            "cl_active",
            "cl_waiting",
            "cl_active_cancel_req",
            "cl_waiting_cancel_req",
            "sv_active",
            "sv_active_cancel",
            "sv_being_canceled",
            "sv_idle",
            "sv_used",
            "sv_tested",
            "sv_login",
            "maxwait",
            "maxwait_us",
            "pool_mode",
            "load_balance_hosts",
        ],
    )
}

pub(super) fn databases_columns() -> Columns {
    Columns::new(
        "ssissiiiissiiiiii",
        &[
            "name",
            "host",
            "port",
            "database",
            "force_user",
            "pool_size",
            "min_pool_size",
            "reserve_pool_size",
            "server_lifetime",
            "pool_mode",
            "load_balance_hosts",
            "max_connections",
            "current_connections",
            "max_client_connections",
            "current_client_connections",
            "paused",
            "disabled",
        ],
    )
}

pub(super) fn users_columns() -> Columns {
    Columns::new(
        "ssssiiii",
        &[
            "name",
            "pool_size",
            "reserve_pool_size",
            "pool_mode",
            "max_user_connections",
            "current_connections",
            "max_user_client_connections",
            "current_client_connections",
        ],
    )
}

/// A pool's mode, in PgBouncer's words.
pub(super) const fn mode(pool: &Pool) -> &'static str {
    if pool.keeps_sessions { "session" } else { "transaction" }
}

/// One user's part of a pool.
#[derive(Clone, Debug, Default)]
struct OfUser {
    clients: usize,
    waiting: usize,
    active: usize,
    idle: usize,
    old: usize,
    connecting: usize,
    cancels: usize,
    being_canceled: usize,
    longest_wait: Duration,
}

/// Counts of all connections, which are looked at once for pools, databases and lists.
pub(super) struct Census {
    /// Each user's part of each pool, by the pools' positions.
    by_user: BTreeMap<(usize, String), OfUser>,
    /// Clients that use a pool, or would use it first, by its position. Those who wait are in none.
    clients: Vec<usize>,
    /// Clients that are let in, consoles left out.
    let_in: usize,
}

impl Census {
    /// Looks at all connections.
    pub(super) fn take(snapshot: &Snapshot, connections: &Connections) -> Self {
        let mut census = Self {
            by_user: shares_by_user(snapshot, connections),
            clients: vec![0; snapshot.pools.len()],
            let_in: 0,
        };
        let mut counts: HashMap<(usize, &str), usize> = HashMap::new();
        for client in &connections.clients {
            census.let_in += usize::from(client.card().purpose != Purpose::Console);
            if let Some(pool) = pool_of(snapshot, connections, client) {
                *counts.entry((pool, &client.card().identity.user)).or_default() += 1;
            }
        }
        for ((pool, user), count) in counts {
            census.by_user.entry((pool, user.to_owned())).or_default().clients = count;
            census.clients[pool] += count;
        }
        census
    }
}

/// Each user's part of each pool, but for its clients.
fn shares_by_user(snapshot: &Snapshot, connections: &Connections) -> BTreeMap<(usize, String), OfUser> {
    let mut found: BTreeMap<(usize, String), OfUser> = BTreeMap::new();
    for (at, pool) in snapshot.pools.iter().enumerate() {
        // Every pool has a row.
        found.entry((at, snapshot.identities.url_user.clone())).or_default();
        for share in pool.members.iter().flat_map(|member| member.shares()) {
            let of_user = found.entry((at, share.identity.user.clone())).or_default();
            of_user.waiting += share.waiting;
            of_user.active += share.leased;
            of_user.idle += share.idle - share.old;
            of_user.old += share.old;
            of_user.connecting += share.connecting;
            of_user.longest_wait = of_user.longest_wait.max(share.longest_wait);
        }
    }
    for (pool, backend) in &connections.backends {
        let cancels = backend.target.cancels_under_way();
        if cancels > 0 {
            let of_user = found.entry((usize::from(pool.0), backend.identity.user.clone())).or_default();
            of_user.cancels += cancels;
            of_user.being_canceled += 1;
        }
    }
    found
}

/// The position of the pool that a client counts for: the one that it uses, or would use first. Who waits counts in a
/// queue, and a console nowhere.
fn pool_of(snapshot: &Snapshot, connections: &Connections, client: &Seen) -> Option<usize> {
    let card = client.card();
    match client.activity {
        _ if card.purpose == Purpose::Console => return None,
        Activity::Waiting => return None,
        Activity::Holds(_) => {
            if let Some(at) = connections.held_by(client) {
                return Some(usize::from(connections.backends[at].0.0));
            }
        }
        Activity::Idle => {}
    }
    let name = client.settings.as_ref().and_then(|settings| settings.get("application_name"));
    Some(usize::from(snapshot.first_pool(card, name).0))
}

/// How hosts are chosen, where there are several.
fn load_balance(pool: &Pool) -> Value {
    if pool.members.len() > 1 {
        "round-robin".into()
    } else if pool.members[0].server().hosts.len() > 1 {
        "disable".into()
    } else {
        Value::Null
    }
}

pub(super) fn pools(snapshot: &Snapshot, census: &Census) -> Rows {
    let row = |((at, user), of_user): (&(usize, String), &OfUser)| {
        let pool = &snapshot.pools[*at];
        vec![
            pool.name.clone().into(),
            user.clone().into(),
            of_user.clients.into(),
            of_user.waiting.into(),
            of_user.cancels.into(),
            Value::Int(0),
            of_user.active.into(),
            of_user.cancels.into(),
            of_user.being_canceled.into(),
            of_user.idle.into(),
            of_user.old.into(),
            Value::Int(0),
            of_user.connecting.into(),
            of_user.longest_wait.as_secs().into(),
            u64::from(of_user.longest_wait.subsec_micros()).into(),
            mode(pool).into(),
            load_balance(pool),
        ]
    };
    all(census.by_user.iter().map(row).collect())
}

pub(super) fn databases(snapshot: &Snapshot, census: &Census) -> Rows {
    let rows = snapshot.pools.iter().enumerate().map(|(at, pool)| {
        let servers: Vec<_> = pool.members.iter().map(|member| member.server()).collect();
        let hosts: Vec<&str> =
            servers.iter().flat_map(|server| &server.hosts).map(|host| host.host.as_str()).collect();
        let figures: Vec<_> = pool.members.iter().map(|member| member.figures()).collect();
        let limits = pool.members[0].limits();
        let places: usize = figures.iter().map(|figures| figures.max_connections).sum();
        let taken: usize = figures.iter().map(Figures::taken).sum();
        let waiting: usize = figures.iter().map(|figures| figures.waiting).sum();
        vec![
            pool.name.clone().into(),
            hosts.join(",").into(),
            i64::from(servers[0].hosts[0].port).into(),
            servers[0].database.clone().into(),
            Value::Null,
            places.into(),
            limits.min_connections.into(),
            Value::Int(0),
            limits.max_lifetime.as_secs().into(),
            mode(pool).into(),
            load_balance(pool),
            places.into(),
            taken.into(),
            Value::Int(0),
            (census.clients[at] + waiting).into(),
            pool.members.iter().any(|member| member.is_paused()).into(),
            pool.members.iter().any(|member| member.is_disabled()).into(),
        ]
    });
    all(rows.collect())
}

pub(super) fn users(snapshot: &Snapshot) -> Rows {
    let connections = Connections::of(snapshot);
    let mut counts: BTreeMap<&str, (usize, usize)> =
        snapshot.identities.users.iter().map(|(name, _)| (name, (0, 0))).collect();
    for (_, backend) in &connections.backends {
        counts.entry(&backend.identity.user).or_default().0 += 1;
    }
    for client in connections.clients.iter().filter(|client| client.card().purpose != Purpose::Console) {
        counts.entry(&client.card().identity.user).or_default().1 += 1;
    }
    let row = |(name, (servers, clients)): (&str, (usize, usize))| {
        let (name, none) = (Value::from(name.to_owned()), Value::Int(0));
        vec![name, "".into(), "".into(), Value::Null, none.clone(), servers.into(), none, clients.into()]
    };
    all(counts.into_iter().map(row).collect())
}

pub(super) fn lists(snapshot: &Snapshot, census: &Census) -> Rows {
    let figures: Vec<_> =
        snapshot.pools.iter().flat_map(|pool| &pool.members).map(|member| member.figures()).collect();
    let places: usize = figures.iter().map(|figures| figures.max_connections).sum();
    let taken: usize = figures.iter().map(Figures::taken).sum();
    let clients = snapshot.metrics.clients.load(Ordering::Relaxed) as usize;
    let items = [
        ("databases", snapshot.pools.len()),
        ("users", snapshot.identities.users.iter().count()),
        ("peers", 0),
        ("pools", census.by_user.len()),
        ("peer_pools", 0),
        ("free_clients", snapshot.limits.max_clients.saturating_sub(clients)),
        ("used_clients", clients),
        ("login_clients", clients.saturating_sub(census.let_in)),
        ("free_servers", places.saturating_sub(taken)),
        ("used_servers", taken),
        ("dns_names", 0),
        ("dns_zones", 0),
        ("dns_queries", 0),
        ("dns_pending", 0),
    ];
    all(items.map(|(name, items)| vec![name.into(), items.into()]).into())
}
