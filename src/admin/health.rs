//! Whether Bulkhead can be sent clients, in words for people and a yes or no for load balancers.
//!
//! Asks no server: says what the last attempts to connect have found.

use std::{collections::BTreeMap, fmt::Write as _};

use crate::session::Shared;

/// The answer of `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    /// Clients can be served. Servers of other pools may be down; they are listed.
    Ready(String),
    /// Clients had better go elsewhere, and why.
    NotReady(String),
}

/// Whether clients can be served: the primary's pool has a server that is not known to be down, and Bulkhead is not
/// shutting down.
pub(super) fn readiness(shared: &Shared) -> Readiness {
    if shared.is_draining() {
        return Readiness::NotReady("shutting down\n".to_owned());
    }
    let primary = &shared.pools[usize::from(shared.routes.primary.0)];
    if primary.members.iter().all(|member| member.gate().is_down()) {
        Readiness::NotReady(servers_down(shared))
    } else {
        Readiness::Ready(format!("ok\n{}", servers_down(shared)))
    }
}

/// A line for each server that is down.
fn servers_down(shared: &Shared) -> String {
    let members = shared.pools.iter().flat_map(|pool| &pool.members);
    let servers: BTreeMap<&str, _> =
        members.map(|member| (member.server_name.as_str(), member.gate())).collect();
    let mut lines = String::new();
    for (name, gate) in servers {
        let Some((down_for, error)) = gate.down_for() else { continue };
        let seconds = down_for.as_secs_f64();
        let error = error.replace(char::is_control, " ");
        writeln!(lines, "server \"{name}\" has been down for {seconds:.1} s: {error}")
            .expect("a String takes every byte");
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::{super::fixture::shared, *};

    #[test]
    fn another_server_that_is_down_is_listed_and_does_not_matter() {
        let shared = shared();
        assert_eq!(readiness(&shared), Readiness::Ready("ok\n".to_owned()));
        shared.pools[1].members[1].gate().failed("connection\nrefused");
        let Readiness::Ready(text) = readiness(&shared) else { panic!("the primary is up") };
        let (first, rest) = text.split_once('\n').expect("two lines");
        assert_eq!(first, "ok");
        assert!(rest.starts_with("server \"other\" has been down for 0"), "{rest}");
        assert!(rest.ends_with(" s: connection refused\n") && rest.lines().count() == 1, "{rest}");
    }

    #[test]
    fn not_ready_while_the_primary_is_down_and_after_the_drain_began() {
        let shared = shared();
        shared.pools[0].members[0].gate().failed("connection refused");
        let Readiness::NotReady(text) = readiness(&shared) else { panic!("the primary is down") };
        assert_eq!(text.lines().count(), 1, "one line, though three pools use the server: {text}");
        shared.pools[0].members[0].gate().succeeded();
        assert_eq!(readiness(&shared), Readiness::Ready("ok\n".to_owned()));
        shared.drain();
        assert_eq!(readiness(&shared), Readiness::NotReady("shutting down\n".to_owned()));
    }
}
