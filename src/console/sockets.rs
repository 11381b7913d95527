//! `SHOW CLIENTS`, `SERVERS` and `SOCKETS`: connections one by one.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::table::{Columns, Rows, Value, all};
use crate::{
    pool::OpenBackend,
    route::PoolId,
    shared::{
        Snapshot,
        cancels::{Activity, Seen},
        card::Purpose,
        connections::Connections,
    },
};

const NAMES: [&str; 28] = [
    "type",
    "user",
    "database",
    "replication",
    "state",
    "addr",
    "port",
    "local_addr",
    "local_port",
    "connect_time",
    "request_time",
    "wait",
    "wait_us",
    "close_needed",
    "ptr",
    "link",
    "remote_pid",
    "tls",
    "application_name",
    "prepared_statements",
    "id",
    "recv_pos",
    "pkt_pos",
    "pkt_remain",
    "send_pos",
    "send_remain",
    "pkt_avail",
    "send_avail",
];

/// Columns of `SOCKETS` that tell of buffers, which nobody owns here.
const POSITIONS: usize = 7;

/// Numbers of servers begin here in `ptr` and `link`, behind those of clients.
const SERVER_PTR: u64 = 1 << 32;

pub(super) fn columns() -> Columns {
    Columns::new("ssssssisissiiississii", &NAMES[..NAMES.len() - POSITIONS])
}

pub(super) fn columns_with_positions() -> Columns {
    Columns::new("ssssssisissiiississiiiiiiiii", &NAMES)
}

/// The contents of a row.
struct Socket {
    kind: &'static str,
    user: String,
    database: String,
    replication: &'static str,
    state: &'static str,
    peer: Option<SocketAddr>,
    local: Option<SocketAddr>,
    connected: SystemTime,
    used: SystemTime,
    wait: Duration,
    close_needed: bool,
    ptr: u64,
    link: Option<u64>,
    remote_pid: i32,
    is_tls: bool,
    application_name: String,
    statements: usize,
    id: i64,
}

impl Socket {
    fn of_client(snapshot: &Snapshot, all: &Connections, client: &Seen) -> Self {
        let (card, now) = (client.card(), SystemTime::now());
        let database = match &card.bound {
            Some(pool) => format!("{}@{pool}", card.identity.database),
            None => card.identity.database.clone(),
        };
        let (state, wait) = match client.activity {
            Activity::Idle => ("idle", Duration::ZERO),
            Activity::Waiting => ("waiting", client.ago),
            Activity::Holds(_) => ("active", Duration::ZERO),
        };
        let console = &snapshot.console;
        Self {
            kind: "C",
            user: card.identity.user.clone(),
            database,
            replication: match card.purpose {
                Purpose::Session | Purpose::Console => "none",
                Purpose::PhysicalReplication => "physical",
                Purpose::LogicalReplication => "logical",
            },
            state,
            peer: card.peer(),
            // The Unix socket bears the port of the address.
            local: card
                .local()
                .or_else(|| Some(SocketAddr::new(console.address.ip(), console.address.port()))),
            connected: UNIX_EPOCH + Duration::from_secs(u64::from(card.since_seconds)),
            used: now.checked_sub(client.ago).unwrap_or(now),
            wait,
            close_needed: false,
            ptr: client.id as u64,
            link: all.held_by(client).map(|at| SERVER_PTR + all.backends[at].1.id.get()),
            remote_pid: 0,
            is_tls: card.is_tls,
            application_name: application_name(client),
            statements: 0,
            id: i64::from(client.id),
        }
    }

    fn of_backend(snapshot: &Snapshot, pool: PoolId, backend: &OpenBackend, holder: Option<&Seen>) -> Self {
        let now = SystemTime::now();
        let (state, ago) = match (&backend.idle, holder) {
            (Some(idle), _) => (if idle.is_old { "used" } else { "idle" }, idle.idle_for),
            (None, Some(holder)) => ("active", holder.ago),
            (None, None) => ("active", Duration::ZERO),
        };
        let of_idle = backend.idle.as_ref().and_then(|idle| idle.settings.get("application_name"));
        Self {
            kind: "S",
            user: backend.identity.user.clone(),
            database: format!("{}@{}", backend.identity.database, snapshot.pool(pool).name),
            replication: holder.map_or("none", |holder| match holder.card().purpose {
                Purpose::PhysicalReplication => "physical",
                Purpose::LogicalReplication => "logical",
                Purpose::Session | Purpose::Console => "none",
            }),
            state,
            peer: backend.target.address(),
            local: backend.local,
            connected: backend.since,
            used: now.checked_sub(ago).unwrap_or(now),
            wait: Duration::ZERO,
            close_needed: backend.is_outdated,
            ptr: SERVER_PTR + backend.id.get(),
            link: holder.map(|holder| holder.id as u64),
            remote_pid: backend.target.process_id,
            is_tls: backend.is_tls,
            application_name: holder.map_or_else(|| of_idle.unwrap_or_default().to_owned(), application_name),
            statements: backend.idle.as_ref().map_or(0, |idle| idle.statements),
            id: backend.id.get() as i64,
        }
    }

    fn row(self) -> Vec<Value> {
        let address = |address: Option<SocketAddr>| {
            let text = address.map_or_else(|| "unix".to_owned(), |address| address.ip().to_string());
            [Value::from(text), Value::from(address.map_or(0, |address| i64::from(address.port())))]
        };
        let [addr, port] = address(self.peer);
        let [local_addr, local_port] = address(self.local);
        let ptr = |ptr: u64| format!("{ptr:#x}");
        vec![
            self.kind.into(),
            self.user.into(),
            self.database.into(),
            self.replication.into(),
            self.state.into(),
            addr,
            port,
            if self.peer.is_none() { "unix".into() } else { local_addr },
            local_port,
            time(self.connected).into(),
            time(self.used).into(),
            self.wait.as_secs().into(),
            u64::from(self.wait.subsec_micros()).into(),
            self.close_needed.into(),
            ptr(self.ptr).into(),
            self.link.map(ptr).unwrap_or_default().into(),
            i64::from(self.remote_pid).into(),
            if self.is_tls { "TLS" } else { "" }.into(),
            self.application_name.into(),
            self.statements.into(),
            self.id.into(),
        ]
    }
}

pub(super) fn application_name(client: &Seen) -> String {
    let settings = client.settings.as_ref();
    settings.and_then(|settings| settings.get("application_name")).unwrap_or_default().to_owned()
}

/// A moment as PgBouncer writes it, `2026-11-26 18:00:00 UTC`.
fn time(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// The date of a day since 1970: years begin with March here, so that the leap day is their last.
fn date(days: u64) -> (u64, u64, u64) {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    // From March 1 of year 0.
    let days = days + 719_468;
    let (era, of_era) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

/// Clients from `offset` on, no more than `limit`, and how many there are: those first that have waited for longest, then
/// those that have had a connection for longest.
pub(super) fn some_clients(snapshot: &Snapshot, offset: usize, limit: usize) -> (usize, Rows) {
    let mut connections = Connections::of(snapshot);
    let rank = |client: &Seen| match client.activity {
        Activity::Waiting => 0,
        Activity::Holds(_) => 1,
        Activity::Idle => 2,
    };
    connections.clients.sort_by_key(|client| (rank(client), std::cmp::Reverse(client.ago), client.id));
    let count = connections.clients.len();
    let chosen = connections.clients.iter().skip(offset).take(limit);
    let rows = chosen.map(|client| Socket::of_client(snapshot, &connections, client).row());
    (count, all(rows.collect()))
}

pub(super) fn clients(snapshot: &Snapshot) -> Rows {
    let connections = Connections::of(snapshot);
    let row = |client| Socket::of_client(snapshot, &connections, client).row();
    all(connections.clients.iter().map(row).collect())
}

fn server_rows<'a>(
    snapshot: &'a Snapshot,
    connections: &'a Connections,
) -> impl Iterator<Item = Socket> + use<'a> {
    let holders = connections.holders();
    connections.backends.iter().enumerate().map(move |(at, (pool, backend))| {
        Socket::of_backend(snapshot, *pool, backend, holders.get(&at).copied())
    })
}

pub(super) fn servers(snapshot: &Snapshot) -> Rows {
    let connections = Connections::of(snapshot);
    all(server_rows(snapshot, &connections).map(Socket::row).collect())
}

/// Clients and servers together; only those that have something to do, if `only_active`.
pub(super) fn sockets(snapshot: &Snapshot, only_active: bool) -> Rows {
    let connections = Connections::of(snapshot);
    let clients = connections.clients.iter().map(|client| {
        let socket = Socket::of_client(snapshot, &connections, client);
        let state = if socket.state == "waiting" { "cl_waiting" } else { "cl_active" };
        (socket.state == "idle", Socket { state, ..socket })
    });
    let servers = server_rows(snapshot, &connections).map(|socket| {
        let state = match socket.state {
            "idle" => "sv_idle",
            "used" => "sv_used",
            _ => "sv_active",
        };
        (state != "sv_active", Socket { state, ..socket })
    });
    let shown = clients.chain(servers).filter(|(is_idle, _)| !(only_active && *is_idle));
    let rows = shown.map(|(_, socket)| {
        let mut row = socket.row();
        row.extend([const { Value::Int(0) }; POSITIONS]);
        row
    });
    all(rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_pgbouncer_writes_them() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59:59 UTC"),
            (1_709_251_200, "2024-03-01 00:00:00 UTC"),
            (4_107_542_399, "2100-02-28 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(time(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
