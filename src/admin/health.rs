//! Whether Bulkhead can be sent clients: `/readyz`, in JSON for people and by its status for load balancers.
//!
//! Asks no server: says what the monitor of `topology` and the pools know.
//!
//! | status | HTTP | when |
//! |---|---|---|
//! | `ready` | 200 | everything is as configured |
//! | `degraded` | 200 | the primary can serve; another server cannot, or has another role than it should; or a server takes fewer connections than its pools may open, or another of its hosts takes writes, too |
//! | `not_ready` | 503 | the primary has not been asked yet, cannot serve or is in recovery; or Bulkhead is shutting down |

use serde::Serialize;

use crate::{
    shared::Snapshot,
    topology::{Known, Role, ServerHealth},
};

/// An error that is longer than this is cut.
const ERROR_CHARACTERS: usize = 500;

/// The answer of `/readyz`.
#[derive(Debug, Serialize)]
pub(super) struct Readiness {
    /// In one word.
    pub(super) status: Status,
    /// Why it is not `ready`; empty if it is.
    pub(super) reasons: Vec<String>,
    servers: Vec<Server>,
    pools: Vec<Pool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    Ready,
    Degraded,
    NotReady,
}

/// A server as the monitor knows it.
#[derive(Debug, Serialize)]
pub(super) struct Server {
    name: String,
    role: &'static str,
    state: &'static str,
    /// How long it has been up, or down; `null` as long as neither is known.
    state_seconds: Option<f64>,
    /// `null` as long as it has not answered.
    in_recovery: Option<bool>,
    last_check_seconds: Option<f64>,
    /// How long no connection could be made.
    unreachable_seconds: Option<f64>,
    last_error: Option<String>,
    /// The one of its hosts that is used; `null` as long as none is.
    host: Option<String>,
    /// How long it has been that one.
    host_seconds: Option<f64>,
    /// Hosts that take writes as well, and get none.
    rivals: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Pool {
    name: String,
    server: String,
    state: &'static str,
    active: usize,
    idle: usize,
    waiting: usize,
    max_connections: usize,
}

/// Whether clients can be served.
pub(super) fn readiness(shared: &Snapshot) -> Readiness {
    let mut status = Status::Ready;
    let mut reasons = Vec::new();
    if shared.is_draining() {
        status = Status::NotReady;
        reasons.push("shutting down".to_owned());
    }
    for server in &shared.health.servers {
        if let Some((worse, reason)) = complaint(server) {
            status = status.max(worse);
            reasons.push(format!("server \"{}\" {reason}", server.name));
        }
    }
    let servers = shared.health.servers.iter().map(describe).collect();
    Readiness { status, reasons, servers, pools: pools(shared) }
}

/// The complaint about a server, and how bad it is.
fn complaint(server: &ServerHealth) -> Option<(Status, String)> {
    let worst = if server.role == Role::Primary { Status::NotReady } else { Status::Degraded };
    match (server.known(), server.role) {
        (Known::Down { error }, _) => Some((worst, format!("cannot serve: {}", readable(&error)))),
        (Known::Unchecked, Role::Primary) => Some((worst, "has not been asked yet".to_owned())),
        (Known::Up { in_recovery: true }, Role::Primary) => {
            Some((worst, "is in recovery: it takes no writes".to_owned()))
        }
        (Known::Up { in_recovery: false }, Role::Replica) => {
            Some((worst, "is not in recovery: it follows no primary".to_owned()))
        }
        (Known::Up { .. } | Known::Unchecked, _) => limitation(server),
    }
}

/// The limitation that keeps a server that can serve from being as it should.
fn limitation(server: &ServerHealth) -> Option<(Status, String)> {
    if let Some((error, open)) = server.full() {
        let nothing = open == 0 && server.role == Role::Primary;
        let status = if nothing { Status::NotReady } else { Status::Degraded };
        let reason = format!("takes no more than {open} connections: {}", readable(&error));
        return Some((status, reason));
    }
    let rivals = server.rivals();
    let in_use = server.host().unwrap_or_default();
    (!rivals.is_empty()).then(|| {
        let reason = format!("is at {in_use}, and {} takes writes as well: stop that", rivals.join(", "));
        (Status::Degraded, reason)
    })
}

pub(super) fn describe(server: &ServerHealth) -> Server {
    let (state, in_recovery, last_error) = match server.known() {
        Known::Unchecked => ("unchecked", None, None),
        Known::Up { in_recovery } => ("up", Some(in_recovery), None),
        Known::Down { error } => ("down", None, Some(readable(&error))),
    };
    Server {
        name: server.name.clone(),
        role: server.role.label(),
        state,
        state_seconds: server.known_for().map(|known| known.as_secs_f64()),
        in_recovery,
        last_check_seconds: server.checked_ago().map(|ago| ago.as_secs_f64()),
        unreachable_seconds: server.unreachable_for().map(|since| since.as_secs_f64()),
        last_error,
        host: server.host(),
        host_seconds: server.host_for().map(|used| used.as_secs_f64()),
        rivals: server.rivals(),
    }
}

fn pools(shared: &Snapshot) -> Vec<Pool> {
    let members = shared.pools.iter().flat_map(|pool| &pool.members);
    let describe = |member: &std::sync::Arc<crate::pool::ServerPool>| {
        let figures = member.figures();
        let state = if member.gate().is_down() {
            "down"
        } else if figures.waiting > 0 {
            "waiting"
        } else if figures.leased >= figures.max_connections {
            "busy"
        } else {
            "free"
        };
        Pool {
            name: member.name.clone(),
            server: member.server_name.clone(),
            state,
            active: figures.leased,
            idle: figures.idle,
            waiting: figures.waiting,
            max_connections: figures.max_connections,
        }
    };
    members.map(describe).collect()
}

/// In one line of bounded length. Servers' errors hold no password.
fn readable(error: &str) -> String {
    error.chars().take(ERROR_CHARACTERS).collect::<String>().replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::{super::fixture::shared, *};

    const WELL: Known = Known::Up { in_recovery: false };
    const FOLLOWS: Known = Known::Up { in_recovery: true };

    /// A fixture of which every server is as it should be.
    fn well() -> Snapshot {
        let shared = shared();
        shared.health.servers[0].set(WELL);
        shared.health.servers[1].set(FOLLOWS);
        shared
    }

    fn of(shared: &Snapshot) -> (Status, Vec<String>) {
        let readiness = readiness(shared);
        (readiness.status, readiness.reasons)
    }

    #[test]
    fn ready_once_the_primary_has_answered() {
        let fresh = shared();
        assert_eq!(of(&fresh).0, Status::NotReady);
        let shared = well();
        assert_eq!(of(&shared), (Status::Ready, vec![]));
        let roles: Vec<_> = shared.health.servers.iter().map(|server| (&*server.name, server.role)).collect();
        assert_eq!(roles, [("main", Role::Primary), ("other", Role::Replica)]);
    }

    #[test]
    fn another_server_that_is_down_degrades() {
        let shared = well();
        shared.pools[1].members[1].gate().failed("connection\nrefused");
        let expected = vec!["server \"other\" cannot serve: connection refused".to_owned()];
        assert_eq!(of(&shared), (Status::Degraded, expected));
        shared.pools[1].members[1].gate().succeeded();
        shared.health.servers[1].set(WELL);
        let expected = vec!["server \"other\" is not in recovery: it follows no primary".to_owned()];
        assert_eq!(of(&shared), (Status::Degraded, expected));
    }

    #[test]
    fn not_ready_while_the_primary_is_down_or_takes_no_writes_and_after_the_drain_began() {
        let shared = well();
        shared.pools[0].members[0].gate().failed("connection refused");
        let expected = vec!["server \"main\" cannot serve: connection refused".to_owned()];
        assert_eq!(of(&shared), (Status::NotReady, expected), "once, though three pools use the server");
        shared.pools[0].members[0].gate().succeeded();
        shared.health.servers[0].set(FOLLOWS);
        assert_eq!(of(&shared).0, Status::NotReady);
        shared.health.servers[0].set(WELL);
        assert_eq!(of(&shared).0, Status::Ready);
        shared.drain();
        assert_eq!(of(&shared), (Status::NotReady, vec!["shutting down".to_owned()]));
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_answer_is_none() {
        let shared = well();
        tokio::time::advance(std::time::Duration::from_secs(12)).await;
        assert_eq!(of(&shared).0, Status::Ready);
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        let (status, reasons) = of(&shared);
        assert_eq!(status, Status::NotReady);
        assert!(reasons[0].contains("it was last asked 13 s ago"), "{reasons:?}");
    }
}
