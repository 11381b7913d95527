//! File descriptors: every client and every server connection takes one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{config::Config, door::accept::DOORSTEP};

/// For logs, listeners, timers, HTTP, consoles, cancels under way, and what libraries open for a moment.
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

/// Connections to servers that may be open.
fn backends(config: &Config) -> u64 {
    config.pools.iter().map(|pool| (pool.max_connections * pool.servers.len()) as u64).sum()
}

/// Descriptors that the configuration may need.
fn wanted(config: &Config) -> u64 {
    (config.limits.max_clients + DOORSTEP) as u64 + backends(config) + RESERVE
}

/// What to say if the configuration asks for more than the limit.
pub fn shortage(config: &Config, limit: Option<u64>) -> Option<String> {
    let limit = limit?;
    let (wanted, backends) = (wanted(config), backends(config));
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

/// Lowers `limits.max_clients` to what the limit leaves for clients, so that servers are connected whoever comes.
/// Returns what to say, if it was more.
pub fn fit(config: &mut Config, limit: Option<u64>) -> Option<String> {
    let told = shortage(config, limit)?;
    let clients = config.limits.max_clients as u64;
    let others = wanted(config) - clients;
    let left = limit?.saturating_sub(others).clamp(1, clients);
    // No more than it was.
    config.limits.max_clients = left as usize;
    Some(format!("{told}; until then limits.max_clients is {left}"))
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
    #[test]
    fn clients_give_way_to_everything_else() {
        let text = "limits.max_clients = 500\n[servers.primary]\nurl = \"postgres://u@h/d\"\n[pools.primary]\nmax_connections = 30\n";
        for (limit, clients) in
            [(None, 500), (Some(830), 500), (Some(829), 499), (Some(400), 70), (Some(10), 1)]
        {
            let mut config = crate::config::parse(text, "x", &|_| None, &[]).expect("a valid text");
            let told = fit(&mut config, limit);
            assert_eq!(config.limits.max_clients, clients, "{limit:?}");
            assert_eq!(told.is_some(), clients != 500);
            assert!(told.is_none_or(|told| told.ends_with(&format!("limits.max_clients is {clients}"))));
        }
    }
}
