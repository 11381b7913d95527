//! Bulkhead itself, as a process of its own with a configuration file, as an operator would run it.

use std::{
    collections::BTreeMap, ffi::OsStr, fmt::Write as _, net::SocketAddr, path::PathBuf, time::Duration,
};

use super::{
    Failure,
    machines::Machine,
    postgres::{APP, Servers, Setup, free_port, within},
    process::{Farewell, Launch, Running},
};
use crate::commands::health;

/// Connections to a server, all pools together: the same in every set-up.
pub(super) const CONNECTIONS: u32 = 20;
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// The exit code for an address that is taken.
const UNAVAILABLE: i32 = 69;
/// Somebody may take a free port before Bulkhead does.
const PORT_TRIES: u32 = 5;

/// How Bulkhead is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pools {
    /// One for everything, as a plain pooler has it.
    One,
    /// The pools that Bulkhead makes by itself where it is told of one server and nothing else.
    Found,
    /// Jobs in a database of their own, on a server of its own.
    Apart,
    /// The same, and reads on a replica: to be played with.
    Whole,
}

/// A running Bulkhead; ended on drop.
#[derive(Debug)]
pub(super) struct Bulkhead {
    pub(super) program: PathBuf,
    pub(super) config: PathBuf,
    pub(super) url: String,
    pub(super) http: SocketAddr,
    process: Running,
}

impl Bulkhead {
    /// Starts it and returns once it says that it is ready.
    pub(super) async fn start(setup: Setup<'_>, servers: &Servers, pools: Pools) -> Result<Self, Failure> {
        for _ in 0..PORT_TRIES {
            if let Some(bulkhead) = Self::try_start(setup, servers, pools).await? {
                return Ok(bulkhead);
            }
        }
        Err(Failure::NotReady { what: "Bulkhead".to_owned(), within: START_TIMEOUT })
    }

    /// `None` if a port was taken.
    async fn try_start(setup: Setup<'_>, servers: &Servers, pools: Pools) -> Result<Option<Self>, Failure> {
        let program = std::env::current_exe().map_err(Failure::System)?;
        let (port, http) = (free_port()?, SocketAddr::from(([127, 0, 0, 1], free_port()?)));
        let name = match pools {
            Pools::One => "one-pool",
            Pools::Found => "one-server",
            Pools::Apart => "job-database",
            Pools::Whole => "bulkhead",
        };
        let text = configuration(port, http, |port| url(port, &setup.passwords.app), servers, pools);
        // Bulkhead runs as the one who runs the demonstration.
        let config = setup.folder.write(&format!("{name}.toml"), &text, None)?;
        let launch = Launch {
            program: &program,
            arguments: &[OsStr::new("--config"), config.as_os_str()],
            owner: None,
            log: &setup.folder.join(&format!("{name}.log")),
            farewell: Farewell::Term,
            on: Some((setup.machines, Machine::Users)),
        };
        let mut process = launch.start()?;
        let is_ready = within(START_TIMEOUT, "Bulkhead", async || {
            match process.ended().map_err(Failure::System)? {
                Some(status) if status.code() == Some(UNAVAILABLE) => return Ok(Some(false)),
                Some(status) => return Err(Failure::Ended { program: program.clone(), status }),
                None => {}
            }
            Ok(matches!(health::get(http, "/readyz"), Ok((200, _))).then_some(true))
        })
        .await?;
        let url = url(port, &setup.passwords.app);
        Ok(is_ready.then_some(Self { program, config, url, http, process }))
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Whether it has ended by itself.
    pub(super) fn has_ended(&mut self) -> bool {
        matches!(self.process.ended(), Ok(Some(_)))
    }

    /// Requests that it has sent to each pool, as its own `/metrics` count them.
    pub(super) fn requests(&self) -> BTreeMap<String, u64> {
        let text = health::get(self.http, "/metrics").map(|(_, text)| text).unwrap_or_default();
        requests_by_pool(&text)
    }
}

fn url(port: u16, password: &str) -> String {
    format!("postgres://{APP}:{password}@127.0.0.1:{port}/{APP}")
}

fn configuration(
    port: u16,
    http: SocketAddr,
    url: impl Fn(u16) -> String,
    servers: &Servers,
    pools: Pools,
) -> String {
    let listen = format!(
        "[listen]\naddress = \"127.0.0.1:{port}\"\nhttp = \"{http}\"\nshutdown_grace = \"1s\"\n\n\
         [servers.primary]\nurl = \"{}\"\n",
        url(servers.primary.port)
    );
    if pools == Pools::One {
        return format!(
            "# The usual set-up: one pool for everything.\n\n{listen}\n\
             [pools.primary]\nservers = [\"primary\"]\nmax_connections = {CONNECTIONS}\n\n\
             [jobs]\npresets = []\n"
        );
    }
    if pools == Pools::Found {
        return format!(
            "# What DATABASE_URL alone gives: the job tables are found, and jobs get a pool of their own.\n\n{listen}\n\
             [pools.primary]\nmax_connections = {CONNECTIONS}\n"
        );
    }
    let mut text = format!(
        "# Separate pools on separate servers: users and jobs cannot take connections from each other.\n\n{listen}\n\
         [servers.jobs]\nurl = \"{}\"\n\n\
         [pools.primary]\nservers = [\"primary\"]\nmax_connections = {CONNECTIONS}\n\n\
         [pools.jobs]\nservers = [\"jobs\"]\nmax_connections = {CONNECTIONS}\n\n\
         [jobs]\npresets = [\"oban\"]\n",
        url(servers.jobs.port)
    );
    if pools == Pools::Whole {
        write!(
            text,
            "\n[servers.replica_1]\nurl = \"{}\"\n\n\
             [pools.replicas]\nservers = [\"replica_1\"]\nmax_connections = {CONNECTIONS}\n",
            url(servers.replica.port)
        )
        .expect("a String takes any text");
    }
    text
}

fn requests_by_pool(metrics: &str) -> BTreeMap<String, u64> {
    let mut requests = BTreeMap::new();
    for line in metrics.lines().filter_map(|line| line.strip_prefix("bulkhead_requests_total{")) {
        let Some((labels, count)) = line.rsplit_once("} ") else { continue };
        let pool = labels.split(',').find_map(|label| label.strip_prefix("pool=\"")?.strip_suffix('"'));
        if let (Some(pool), Ok(count)) = (pool, count.parse::<f64>()) {
            *requests.entry(pool.to_owned()).or_default() += count as u64;
        }
    }
    requests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_summed_up_by_pool() {
        let text = "# HELP bulkhead_requests_total ..\n\
                    bulkhead_requests_total{class=\"read\",pool=\"replicas\",reason=\"a\"} 3\n\
                    bulkhead_requests_total{class=\"job\",pool=\"jobs\",reason=\"b\"} 4\n\
                    bulkhead_requests_total{class=\"job\",pool=\"jobs\",reason=\"c\"} 5\n\
                    bulkhead_clients 7\n";
        let wanted = [("jobs".to_owned(), 9), ("replicas".to_owned(), 3)];
        assert_eq!(requests_by_pool(text), BTreeMap::from(wanted));
    }
}
