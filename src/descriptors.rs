//! File descriptors: every client and every server connection takes one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{config::Config, listener::DOORSTEP};

/// For logs, listeners, timers, HTTP, cancels under way, and what libraries open for a moment.
const RESERVE: u64 = 200;

/// Raises the soft limit to the hard one: the soft one is low for the sake of programs that use `select`. Returns how
/// many there may be; `None` without a limit.
pub fn raise_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return maximum;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(%error, ?current, ?maximum, "the limit of file descriptors could not be raised");
            current
        }
    }
}

/// The hard limit.
pub fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// What to say if the configuration asks for more than the limit.
pub fn shortage(config: &Config, limit: Option<u64>) -> Option<String> {
    let limit = limit?;
    let clients = (config.limits.max_clients + DOORSTEP) as u64;
    let backends: usize = config.pools.iter().map(|pool| pool.max_connections * pool.servers.len()).sum();
    let wanted = clients + backends as u64 + RESERVE;
    (wanted > limit).then(|| {
        format!(
            "limits.max_clients ({}, and {DOORSTEP} being turned away), the pools' max_connections ({backends} in all) \
             and {RESERVE} in reserve take {wanted} file descriptors, but this process may have only {limit}: raise \
             that (ulimit -Hn, LimitNOFILE= of systemd, --ulimit nofile= of Docker), or lower limits.max_clients or \
             pools.*.max_connections",
            config.limits.max_clients
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_figures_and_the_keys() {
        let text = "limits.max_clients = 500\n[servers.primary]\nurl = \"postgres://u@h/d\"\n[pools.primary]\nmax_connections = 30\n";
        let config = crate::config::parse(text, "x", &|_| None, &[]).expect("a valid text");
        assert_eq!(shortage(&config, None), None);
        assert_eq!(shortage(&config, Some(830)), None);
        let told = shortage(&config, Some(829)).expect("one too few");
        for part in ["limits.max_clients (500,", "pools.*.max_connections", "(30 in all)", "830", "829"] {
            assert!(told.contains(part), "{told}");
        }
    }
}
