//! The servers of a configuration, and the bounds of counts and times that servers and pools have in common.

use std::time::Duration;

use super::{PRIMARY, Server, file::Section, problem::Wrong, url::ServerUrl};

/// The least of a timeout that must not be zero.
pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
/// Far above what Postgres can hold; catches a slipped digit.
pub(super) const CONNECTIONS_MAX: usize = 100_000;
/// The largest share of reads that a replica can have.
const WEIGHT_MAX: usize = 100;
/// A server's section, and the server unless its URL is wrong.
pub(super) struct Named<'a> {
    pub(super) name: String,
    pub(super) section: Section<'a>,
    pub(super) max_connections: Option<usize>,
    pub(super) server: Option<Server>,
}

pub(super) fn servers<'a>(root: &Section<'a>) -> Vec<Named<'a>> {
    let servers: Vec<_> =
        root.named("servers").into_iter().map(|(name, section)| server(name, section)).collect();
    if !servers.iter().any(|server| server.name == PRIMARY) {
        let hint = "write [servers.primary] and below it url = \"${DATABASE_URL}\"";
        root.problem("servers", Wrong::new("no server is called primary", hint));
    }
    servers
}

fn server(name: String, section: Section<'_>) -> Named<'_> {
    let max_connections = section
        .has("max_connections")
        .then(|| section.count("max_connections", CONNECTIONS_MAX, &(1..=CONNECTIONS_MAX)));
    if !section.has("url") {
        let hint = "write url = \"postgres://user:password@host:5432/database\", or \"${DATABASE_URL}\"";
        section.problem("url", Wrong::new("is missing", hint));
    }
    let url = section.parsed("url", None, |text| ServerUrl::parse(text).map(Some));
    let weight = section.count("weight", 1, &(1..=WEIGHT_MAX));
    let server = url.map(|url| Server {
        name: name.clone(),
        weight,
        hosts: url.hosts,
        session_attrs: url.session_attrs,
        user: url.user,
        password: url.password,
        database: url.database,
        max_connections,
        tls: url.tls,
        connect_timeout: url.connect_timeout,
        application_name: url.application_name,
        require_auth: url.require_auth,
    });
    Named { name, section, max_connections, server }
}
