//! How values are written in the lines of a reload.

use std::{fmt::Debug, path::PathBuf};

use super::super::{Config, HostPort, Pool};

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
