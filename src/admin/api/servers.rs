//! `/api/v1/servers`: each server as the monitor knows it, and how far each replica is behind.

use serde::Serialize;

use super::super::health;
use crate::{
    shared::Snapshot,
    topology::{Role, ServerHealth},
};

/// A server.
#[derive(Debug, Serialize)]
pub(super) struct ServerNow {
    #[serde(flatten)]
    health: health::Server,
    /// Connections to it that are open, of all pools together.
    open_connections: usize,
    /// `null` for one that is no replica.
    replica: Option<Replica>,
}

/// The part that only replicas have.
#[derive(Debug, Serialize)]
struct Replica {
    serves_reads: bool,
    lag_seconds: f64,
    lag_bytes: u64,
    /// Why it serves no reads; `null` if it does.
    why_not: Option<&'static str>,
}

/// The servers now.
pub(super) fn servers(snapshot: &Snapshot) -> Vec<ServerNow> {
    snapshot.health.servers.iter().map(|server| describe(snapshot, server)).collect()
}

fn describe(snapshot: &Snapshot, server: &ServerHealth) -> ServerNow {
    let members = snapshot.pools.iter().flat_map(|pool| &pool.members);
    let open = members
        .filter(|member| member.server_name == server.name)
        .map(|member| member.figures().leased + member.figures().idle)
        .sum();
    let replica = (server.role == Role::Replica).then(|| {
        let (lag_bytes, lag) = server.reads().lag();
        let why_not = snapshot.why_no_reads(server);
        Replica { serves_reads: why_not.is_none(), lag_seconds: lag.as_secs_f64(), lag_bytes, why_not }
    });
    ServerNow { health: health::describe(server), open_connections: open, replica }
}
