//! A configuration of the proxy, made for servers of the harness and changed key by key.

use toml::{Table, Value};

use super::{Cluster, Login, Postgres};

/// A configuration file in the making. The addresses to listen on are filled in by
/// [`Proxy::start`](super::Proxy::start), which finds free ports.
#[derive(Clone, Debug)]
pub(crate) struct ProxyConfig {
    table: Table,
}

impl ProxyConfig {
    /// All of a cluster: pools of 10 for the primary, the replica and the jobs, preset `oban`.
    pub(crate) fn of(cluster: &Cluster) -> Self {
        Self::primary_only(&cluster.primary)
            .set("servers.replica_1", "url", cluster.replica.url(Login::App))
            .set("servers.jobs", "url", cluster.jobs.url(Login::App))
            .pool("replicas", &["replica_1"], 10)
            .pool("jobs", &["jobs"], 10)
            .set("jobs", "presets", vec!["oban"])
    }

    /// One server and one pool of 10: a plain pooler.
    pub(crate) fn primary_only(primary: &Postgres) -> Self {
        Self { table: Table::new() }
            .set("listen", "address", "{listen}")
            .set("listen", "http", "{http}")
            .set("servers.primary", "url", primary.url(Login::App))
            .pool("primary", &["primary"], 10)
    }

    /// Adds a pool, or changes servers and bound of one that is there.
    pub(crate) fn pool(self, name: &str, servers: &[&str], max_connections: i64) -> Self {
        let section = format!("pools.{name}");
        self.set(&section, "servers", servers.to_vec()).set(&section, "max_connections", max_connections)
    }

    /// Sets a key; the section is its dotted name, such as `pools.primary`.
    pub(crate) fn set(mut self, section: &str, key: &str, value: impl Into<Value>) -> Self {
        let mut table = &mut self.table;
        for part in section.split('.').filter(|part| !part.is_empty()) {
            let entry = table.entry(part).or_insert_with(|| Value::Table(Table::new()));
            table = entry.as_table_mut().expect("the section is a table");
        }
        table.insert(key.to_owned(), value.into());
        self
    }

    /// Removes a section or a key by its dotted name.
    pub(crate) fn remove(mut self, name: &str) -> Self {
        let (section, key) = name.rsplit_once('.').unwrap_or(("", name));
        let mut table = Some(&mut self.table);
        for part in section.split('.').filter(|part| !part.is_empty()) {
            table = table.and_then(|table| table.get_mut(part)?.as_table_mut());
        }
        table.and_then(|table| table.remove(key));
        self
    }

    /// The text of the file.
    pub(crate) fn to_toml(&self) -> String {
        self.table.to_string()
    }
}
