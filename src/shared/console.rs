//! What the configuration says of the console and of actions over HTTP, and what the console tells of the configuration.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::{auth::Secret, version::PgBouncer};

/// The console's part of the configuration.
#[derive(Clone, Debug)]
pub struct Console {
    /// The databases that are the console; none of them is a real one for clients.
    pub databases: Vec<String>,
    /// Users that may do everything.
    pub admin_users: Vec<String>,
    /// Users that may look.
    pub stats_users: Vec<String>,
    /// Consoles that may be open at once.
    pub max_clients: usize,
    /// How long statements wait for a pool that is paused.
    pub pause_timeout: Duration,
    /// The version of PgBouncer whose columns it has.
    pub like: PgBouncer,
    /// Whether metrics have its figures as well, under the names of pgbouncer_exporter.
    pub names_metrics: bool,
    /// The bearer token that actions over HTTP need; without one there are none.
    pub http_token: Option<Secret>,
    /// Every key of the configuration, as it is told.
    pub keys: Vec<ToldKey>,
    /// Where clients come in.
    pub address: SocketAddr,
    /// The directory of the Unix socket.
    pub unix_socket_dir: Option<PathBuf>,
}

/// A key of the configuration, as the console tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldKey {
    /// The key's whole name.
    pub name: String,
    /// The value in force.
    pub value: String,
    /// The default.
    pub default: String,
    /// Whether a reload can change it.
    pub is_changeable: bool,
}

impl Default for Console {
    fn default() -> Self {
        Self {
            databases: Vec::new(),
            admin_users: Vec::new(),
            stats_users: Vec::new(),
            max_clients: 20,
            pause_timeout: Duration::from_secs(120),
            like: PgBouncer::default(),
            names_metrics: false,
            http_token: None,
            keys: Vec::new(),
            address: SocketAddr::from(([127, 0, 0, 1], 6432)),
            unix_socket_dir: None,
        }
    }
}

impl Console {
    /// Whether a client that asks for this database gets the console.
    pub fn is_at(&self, database: &str) -> bool {
        self.databases.iter().any(|name| name == database)
    }
}
