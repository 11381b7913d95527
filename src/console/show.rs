//! Every `SHOW`: its name, its columns, and who knows its rows.

use std::fs;

use super::{
    lexer::Word,
    own, pools, queries, routing, sockets, stats,
    table::{Columns, Rows, Value, all, none, one},
};
use crate::{
    shared::{Snapshot, connections::Connections},
    version::{self, PgBouncer},
};

/// A thing to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Show {
    Version,
    Help,
    Stats,
    StatsTotals,
    StatsAverages,
    Totals,
    Pools,
    Databases,
    Clients,
    Servers,
    Sockets,
    ActiveSockets,
    Lists,
    Users,
    Config,
    Mem,
    Fds,
    DnsHosts,
    DnsZones,
    State,
    Peers,
    PeerPools,
    Health,
    Pins,
    Reasons,
    Replicas,
    Routes,
    Causal,
    Jobs,
    Listeners,
    Why,
    Queries,
    Slow,
    /// A parameter of PostgreSQL's sessions, and the value that it would have: what connection libraries ask for.
    Parameter(&'static str, String),
    /// The version, under the name by which connection libraries ask for it.
    ServerVersion(&'static str),
    /// The number one.
    One,
}

/// The names, in the order of the help.
const NAMES: [(&str, Show); 33] = [
    ("help", Show::Help),
    ("version", Show::Version),
    ("config", Show::Config),
    ("databases", Show::Databases),
    ("pools", Show::Pools),
    ("clients", Show::Clients),
    ("servers", Show::Servers),
    ("users", Show::Users),
    ("peers", Show::Peers),
    ("peer_pools", Show::PeerPools),
    ("fds", Show::Fds),
    ("sockets", Show::Sockets),
    ("active_sockets", Show::ActiveSockets),
    ("lists", Show::Lists),
    ("mem", Show::Mem),
    ("state", Show::State),
    ("dns_hosts", Show::DnsHosts),
    ("dns_zones", Show::DnsZones),
    ("stats", Show::Stats),
    ("stats_totals", Show::StatsTotals),
    ("stats_averages", Show::StatsAverages),
    ("totals", Show::Totals),
    ("health", Show::Health),
    ("replicas", Show::Replicas),
    ("routes", Show::Routes),
    ("causal", Show::Causal),
    ("jobs", Show::Jobs),
    ("pins", Show::Pins),
    ("reasons", Show::Reasons),
    ("listeners", Show::Listeners),
    ("why", Show::Why),
    ("queries", Show::Queries),
    ("slow", Show::Slow),
];

/// Parameters of PostgreSQL's sessions.
const PARAMETERS: [(&str, &str); 14] = [
    ("client_encoding", "UTF8"),
    ("server_encoding", "UTF8"),
    ("standard_conforming_strings", "on"),
    ("datestyle", "ISO"),
    ("timezone", "GMT"),
    ("extra_float_digits", "2"),
    ("default_transaction_isolation", "read committed"),
    ("transaction_isolation", "read committed"),
    ("default_transaction_read_only", "off"),
    ("transaction_read_only", "off"),
    ("in_hot_standby", "off"),
    ("is_superuser", "on"),
    ("search_path", ""),
    ("max_identifier_length", "63"),
];

/// The text of `SHOW HELP`, without the lists of names.
const COMMANDS: &str = "SET key = value
RELOAD
PAUSE [pool]
RESUME [pool]
DISABLE pool
ENABLE pool
RECONNECT [pool]
WAIT_CLOSE [pool]
KILL [pool]
KILL_CLIENT id
RESET QUERIES
SHUTDOWN
SHUTDOWN WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS";

impl Show {
    /// The thing that the words behind SHOW name.
    pub(super) fn named(words: &[Word]) -> Option<Self> {
        match words {
            [one] if !one.is_quoted => {
                let name = one.text.to_ascii_lowercase();
                if let Some((_, show)) = NAMES.iter().find(|(known, _)| *known == name) {
                    return Some(show.clone());
                }
                if name == "server_version" {
                    return Some(Self::ServerVersion("server_version"));
                }
                let known = PARAMETERS.iter().find(|(known, _)| *known == name);
                known.map(|(name, value)| Self::Parameter(name, (*value).to_owned()))
            }
            [servers, health] if servers.is("servers") && health.is("health") => Some(Self::Health),
            [transaction, isolation, level]
                if transaction.is("transaction") && isolation.is("isolation") && level.is("level") =>
            {
                Some(Self::Parameter("transaction_isolation", "read committed".to_owned()))
            }
            _ => None,
        }
    }

    /// The columns of its rows; `None` if it has no rows.
    pub(super) fn columns(&self, like: PgBouncer) -> Option<Columns> {
        Some(match self {
            Self::Help | Self::Fds => return None,
            Self::Version => Columns::new("s", &["version"]),
            Self::Stats => stats::stats_columns(like),
            Self::StatsTotals => stats::totals_columns(like),
            Self::StatsAverages => stats::averages_columns(like),
            Self::Totals => Columns::new("sN", &["name", "value"]),
            Self::Pools => pools::pools_columns(),
            Self::Databases => pools::databases_columns(),
            Self::Clients | Self::Servers => sockets::columns(),
            Self::Sockets | Self::ActiveSockets => sockets::columns_with_positions(),
            Self::Lists => Columns::new("si", &["list", "items"]),
            Self::Users => pools::users_columns(),
            Self::Config => Columns::new("ssss", &["key", "value", "default", "changeable"]),
            Self::Mem => Columns::new("siiii", &["name", "size", "used", "free", "memtotal"]),
            Self::DnsHosts => Columns::new("sqs", &["hostname", "ttl", "addrs"]),
            Self::DnsZones => Columns::new("sqi", &["zonename", "serial", "count"]),
            Self::State => Columns::new("ss", &["key", "value"]),
            Self::Peers => Columns::new("isii", &["peer_id", "host", "port", "pool_size"]),
            Self::PeerPools => Columns::new(
                "iiiii",
                &["peer_id", "cl_active_cancel_req", "cl_waiting_cancel_req", "sv_active_cancel", "sv_login"],
            ),
            Self::Health => own::health_columns(),
            Self::Pins => own::pins_columns(),
            Self::Reasons => own::reasons_columns(),
            Self::Replicas => own::replicas_columns(),
            Self::Routes => routing::routes_columns(),
            Self::Causal => routing::causal_columns(),
            Self::Jobs => routing::jobs_columns(),
            Self::Listeners => own::listeners_columns(),
            Self::Why => own::why_columns(),
            Self::Queries => queries::columns(),
            Self::Slow => queries::slow_columns(),
            Self::Parameter(name, _) | Self::ServerVersion(name) => Columns::new("s", &[*name]),
            Self::One => Columns::new("i", &["?column?"]),
        })
    }

    /// The rows, as things are now; those of `SHOW WHY` take time to find out, and are made elsewhere.
    pub(super) fn rows(&self, snapshot: &Snapshot, like: PgBouncer) -> Rows {
        let census = || pools::Census::take(snapshot, &Connections::of(snapshot));
        match self {
            Self::Help
            | Self::Fds
            | Self::DnsHosts
            | Self::DnsZones
            | Self::Peers
            | Self::PeerPools
            | Self::Why => none(),
            Self::Version => {
                one([format!("PgBouncer {} (Bulkhead {})", like.release(), version::VERSION).into()])
            }
            Self::Stats => stats::stats(snapshot, like),
            Self::StatsTotals => stats::totals(snapshot, like),
            Self::StatsAverages => stats::averages(snapshot, like),
            Self::Totals => stats::sums(snapshot, like),
            Self::Pools => pools::pools(snapshot, &census()),
            Self::Databases => pools::databases(snapshot, &census()),
            Self::Clients => sockets::clients(snapshot),
            Self::Servers => sockets::servers(snapshot),
            Self::Sockets => sockets::sockets(snapshot, false),
            Self::ActiveSockets => sockets::sockets(snapshot, true),
            Self::Lists => pools::lists(snapshot, &census()),
            Self::Users => pools::users(snapshot),
            Self::Config => config(snapshot),
            Self::Mem => memory(),
            Self::State => state(snapshot),
            Self::Health => own::health(snapshot),
            Self::Pins => own::pins(snapshot),
            Self::Reasons => own::reasons(snapshot),
            Self::Replicas => own::replicas(snapshot),
            Self::Routes => routing::routes(snapshot),
            Self::Causal => routing::causal(snapshot),
            Self::Jobs => routing::jobs(snapshot),
            Self::Listeners => own::listeners(snapshot),
            Self::Queries => queries::rows(snapshot),
            Self::Slow => queries::slow_rows(snapshot),
            Self::Parameter(_, value) => one([value.clone().into()]),
            Self::ServerVersion("server_version") => one([format!("{}/bulkhead", like.release()).into()]),
            Self::ServerVersion(_) => {
                one([format!("PostgreSQL {} (Bulkhead's console, no server)", like.release()).into()])
            }
            Self::One => one([Value::Int(1)]),
        }
    }
}

/// The text of `SHOW HELP`.
pub(super) fn help() -> String {
    let (theirs, ours) = NAMES.split_at(22);
    let names = |names: &[(&str, Show)]| {
        let names: Vec<String> = names.iter().map(|(name, _)| name.to_ascii_uppercase()).collect();
        names.join("|")
    };
    format!("SHOW {}\nSHOW {}\n{COMMANDS}", names(theirs), names(ours))
}

/// The configuration: first what PgBouncer's tools look for, by its names, then every key of ours.
fn config(snapshot: &Snapshot) -> Rows {
    let console = &snapshot.console;
    let told = |name: &str| console.keys.iter().find(|key| key.name == name);
    let value = |name: &str| told(name).map(|key| key.value.clone()).unwrap_or_default();
    let default = |name: &str| told(name).map(|key| key.default.clone()).unwrap_or_default();
    let primary = snapshot.pool(snapshot.routes.primary);
    let limits = primary.members[0].limits();
    let seconds = |duration: std::time::Duration| duration.as_secs().to_string();
    let theirs = [
        ("listen_addr", console.address.ip().to_string(), "127.0.0.1".to_owned()),
        ("listen_port", console.address.port().to_string(), "6432".to_owned()),
        ("auth_type", value("auth.method"), default("auth.method")),
        ("admin_users", console.admin_users.join(","), String::new()),
        ("stats_users", console.stats_users.join(","), String::new()),
        ("max_client_conn", snapshot.limits.max_clients.to_string(), default("limits.max_clients")),
        ("pool_mode", pools::mode(primary).to_owned(), "transaction".to_owned()),
        ("default_pool_size", limits.max_connections.to_string(), "20".to_owned()),
        ("min_pool_size", limits.min_connections.to_string(), "0".to_owned()),
        ("reserve_pool_size", "0".to_owned(), "0".to_owned()),
        ("max_db_connections", "0".to_owned(), "0".to_owned()),
        ("max_user_connections", "0".to_owned(), "0".to_owned()),
        (
            "max_prepared_statements",
            value("limits.prepared_per_backend"),
            default("limits.prepared_per_backend"),
        ),
        ("query_wait_timeout", seconds(limits.wait_timeout), "5".to_owned()),
        ("server_idle_timeout", seconds(limits.idle_timeout), "600".to_owned()),
        ("server_lifetime", seconds(limits.max_lifetime), "3600".to_owned()),
        ("server_connect_timeout", seconds(limits.connect_timeout), "5".to_owned()),
        ("client_login_timeout", seconds(snapshot.limits.login_timeout), "15".to_owned()),
        ("stats_period", "60".to_owned(), "60".to_owned()),
    ];
    let theirs =
        theirs.map(|(name, value, default)| vec![name.into(), value.into(), default.into(), "no".into()]);
    let ours = console.keys.iter().map(|key| {
        let changeable = if key.is_changeable { "yes" } else { "no" };
        vec![key.name.clone().into(), key.value.clone().into(), key.default.clone().into(), changeable.into()]
    });
    all(theirs.into_iter().chain(ours).collect())
}

/// Memory has no slabs here: one row tells of all of it, in pages.
fn memory() -> Rows {
    let page = rustix::param::page_size();
    let resident = fs::read_to_string("/proc/self/statm").ok().and_then(|statm| {
        let pages = statm.split_whitespace().nth(1)?;
        pages.parse::<usize>().ok()
    });
    let pages = resident.unwrap_or_default();
    one(["resident".into(), page.into(), pages.into(), 0_usize.into(), (page * pages).into()])
}

fn state(snapshot: &Snapshot) -> Rows {
    let is_paused = snapshot.pools.iter().flat_map(|pool| &pool.members).all(|member| member.is_paused());
    let word = |is: bool| Value::from(if is { "yes" } else { "no" });
    all(vec![
        vec!["active".into(), word(!is_paused)],
        vec!["paused".into(), word(is_paused)],
        vec!["suspended".into(), word(false)],
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_in_the_help_and_has_as_many_types_as_columns() {
        let help = help();
        for (name, show) in NAMES {
            assert!(help.contains(&name.to_ascii_uppercase()), "{name}");
            // Its own assertion looks.
            for like in PgBouncer::ALL {
                let _ = show.columns(like);
            }
        }
        assert!(help.contains("|TOTALS\nSHOW HEALTH|"), "{help}");
    }
}
