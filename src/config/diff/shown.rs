//! How values are written in the lines of a reload.

use std::{
    fmt::{self, Debug, Display},
    path::PathBuf,
};

use super::{
    super::{Config, HostPort, Pool},
    Change,
};

impl Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key { key, from, to } => write!(f, "{key}: {from} -> {to}"),
            Self::Password { server } => write!(f, "servers.{server}.url: another password"),
            Self::Secret(key) => write!(f, "{key}: another value"),
            Self::Moved { server, from, to } => write!(f, "servers.{server}: moved from {from} to {to}"),
            Self::ServerAdded { server, at } => write!(f, "servers.{server}: added, at {at}"),
            Self::ServerRemoved { server } => write!(f, "servers.{server}: removed"),
            Self::PoolAdded { pool, servers, max_connections } => {
                write!(f, "pools.{pool}: added, up to {max_connections} connections to {}", list(servers))
            }
            Self::PoolRemoved { pool } => write!(f, "pools.{pool}: removed"),
        }
    }
}

pub(super) fn server_names(pool: &Pool, config: &Config) -> Vec<String> {
    pool.servers.iter().map(|at| config.servers[*at].name.clone()).collect()
}

pub(super) fn hosts(places: &[HostPort]) -> String {
    places.iter().map(HostPort::to_string).collect::<Vec<_>>().join(",")
}

pub(super) fn path(path: Option<&PathBuf>) -> String {
    path.map_or_else(|| "none".to_owned(), |path| path.display().to_string())
}

pub(super) fn shown(value: &impl Debug) -> String {
    format!("{value:?}")
}

pub(super) fn optional(value: Option<&impl Debug>) -> String {
    value.map_or_else(|| "none".to_owned(), shown)
}

pub(super) fn list(texts: &[String]) -> String {
    format!("{texts:?}")
}
