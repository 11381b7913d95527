//! `/api/v1/pools`: each pool as it is now; who holds its connections, and who waits for one.

use std::{sync::Arc, time::Duration};

use serde::Serialize;

use super::recent::{Recent, quantile};
use crate::{
    console::objects::{Holders, holders},
    metrics::Observed,
    pool::{Figures, Pool, ServerPool},
    shared::Snapshot,
};

/// Groups of holders, and of those who wait, that are told of one pool.
const GROUPS_MAX: usize = 8;
/// Names that are longer are cut.
const NAME_CHARACTERS: usize = 120;

/// A pool, on all of its servers.
#[derive(Debug, Serialize)]
pub(super) struct PoolNow {
    pub(super) name: String,
    /// `transaction` or `session`.
    mode: &'static str,
    /// `free`, `busy`, `waiting`, `down`, `paused` or `disabled`.
    pub(super) state: &'static str,
    /// Whether no connection of it is left: what a paused pool comes to.
    is_quiet: bool,
    pub(super) max_connections: usize,
    pub(super) active: usize,
    idle: usize,
    connecting: usize,
    closing: usize,
    pub(super) waiting: usize,
    max_waiting: usize,
    pub(super) longest_wait_seconds: f64,
    /// Waits of those who were given a connection within the last minute; `null` if nobody was.
    wait_p50_seconds: Option<f64>,
    wait_p95_seconds: Option<f64>,
    pinned: usize,
    max_pinned: usize,
    pub(super) held_by: Vec<Group>,
    waiting_for_it: Vec<Queue>,
    servers: Vec<Member>,
}

/// Clients of one user and `application_name` that hold connections.
#[derive(Debug, Serialize)]
pub(super) struct Group {
    user: String,
    pub(super) application_name: String,
    pub(super) connections: usize,
    pub(super) longest_seconds: f64,
}

/// Clients of one user and database that wait.
#[derive(Debug, Serialize)]
struct Queue {
    user: String,
    database: String,
    waiting: usize,
    longest_wait_seconds: f64,
}

/// A pool on one of its servers.
#[derive(Debug, Serialize)]
struct Member {
    server: String,
    state: &'static str,
    max_connections: usize,
    active: usize,
    idle: usize,
    waiting: usize,
}

/// The pools now.
pub(super) fn pools(snapshot: &Snapshot, recent: &Recent) -> Vec<PoolNow> {
    let (waits, _) = recent.waits(snapshot);
    let all = snapshot.pools.iter().zip(holders(snapshot));
    all.map(|(pool, holders)| describe(pool, holders, waits.get(&pool.name))).collect()
}

fn describe(pool: &Pool, holders: Vec<Holders>, waits: Option<&Observed>) -> PoolNow {
    let figures: Vec<Figures> = pool.members.iter().map(|member| member.figures()).collect();
    let sum = |of: fn(&Figures) -> usize| figures.iter().map(of).sum::<usize>();
    let limits = |of: fn(&ServerPool) -> usize| pool.members.iter().map(|member| of(member)).sum::<usize>();
    let waiting_for_it = waiting(pool);
    let any = |is: fn(&ServerPool) -> bool| pool.members.iter().any(|member| is(member));
    let (waiting, active, max_connections) =
        (sum(|f| f.waiting), sum(|f| f.leased), sum(|f| f.max_connections));
    let state = if any(ServerPool::is_disabled) {
        "disabled"
    } else if any(ServerPool::is_paused) {
        "paused"
    } else if pool.members.iter().all(|member| member.gate().is_down()) {
        "down"
    } else if waiting > 0 {
        "waiting"
    } else if active >= max_connections {
        "busy"
    } else {
        "free"
    };
    PoolNow {
        name: pool.name.clone(),
        mode: if pool.keeps_sessions { "session" } else { "transaction" },
        state,
        is_quiet: pool.members.iter().all(|member| member.is_quiet()),
        max_connections,
        active,
        idle: sum(|f| f.idle),
        connecting: sum(|f| f.connecting),
        closing: sum(|f| f.closing),
        waiting,
        max_waiting: limits(|member| member.limits().max_waiting),
        longest_wait_seconds: waiting_for_it
            .iter()
            .map(|group| group.longest_wait_seconds)
            .fold(0.0, f64::max),
        wait_p50_seconds: waits.and_then(|waits| quantile(waits, 0.5)),
        wait_p95_seconds: waits.and_then(|waits| quantile(waits, 0.95)),
        pinned: sum(|f| f.pinned),
        max_pinned: limits(|member| member.limits().max_pinned),
        held_by: holders.into_iter().take(GROUPS_MAX).map(group).collect(),
        waiting_for_it,
        servers: pool
            .members
            .iter()
            .zip(&figures)
            .map(|(member, figures)| describe_member(member, figures))
            .collect(),
    }
}

fn group(holders: Holders) -> Group {
    let Holders { user, application_name, connections, longest } = holders;
    let (user, application_name) = (cut(&user), cut(&application_name));
    Group { user, application_name, connections, longest_seconds: longest.as_secs_f64() }
}

/// Clients that wait, by user and database; those first that have waited for longest.
fn waiting(pool: &Pool) -> Vec<Queue> {
    let shares = pool.members.iter().flat_map(|member| member.shares());
    let mut groups: Vec<(Duration, Queue)> = shares
        .filter(|share| share.waiting > 0)
        .map(|share| {
            let queue = Queue {
                user: cut(&share.identity.user),
                database: cut(&share.identity.database),
                waiting: share.waiting,
                longest_wait_seconds: share.longest_wait.as_secs_f64(),
            };
            (share.longest_wait, queue)
        })
        .collect();
    groups.sort_by_key(|(longest, _)| std::cmp::Reverse(*longest));
    groups.truncate(GROUPS_MAX);
    groups.into_iter().map(|(_, group)| group).collect()
}

fn describe_member(member: &Arc<ServerPool>, figures: &Figures) -> Member {
    Member {
        server: member.server_name.clone(),
        state: if member.gate().is_down() { "down" } else { "up" },
        max_connections: figures.max_connections,
        active: figures.leased,
        idle: figures.idle,
        waiting: figures.waiting,
    }
}

fn cut(name: &str) -> String {
    name.chars().take(NAME_CHARACTERS).collect()
}
