//! All keys, once: their names, defaults and meaning. The reader refuses others, and tests hold that the commented
//! example names each of these with this default and that `docs/configuration.md` is made from them.

/// A key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name within its section.
    pub name: &'static str,
    /// What is written: a text, a number, a duration..
    pub unit: Unit,
    /// The default as it would be written, or in words where it depends on something.
    pub default: &'static str,
    /// When a change takes effect.
    pub change: Change,
    /// What it is for, in one sentence or two.
    pub meaning: &'static str,
}

/// What a value of a key looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// `"127.0.0.1:6432"`.
    Address,
    /// A whole number of things.
    Count,
    /// `"500ms"`, `"2s"`, `"5m"`, `"1h"`, `"1d"`.
    Duration,
    /// `"64KiB"`, `"1MiB"`, `"16kB"`.
    Size,
    /// Any text, or one of a few words.
    Text,
    /// A path.
    Path,
    /// File permissions in octal: `"0660"`.
    Mode,
    /// A list of texts.
    Texts,
    /// `true` or `false`.
    Flag,
    /// A section of its own.
    Section,
}

/// When a change of a key takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// With the next start.
    Restart,
    /// With the next reload, without cutting a transaction.
    Reload,
}

/// One section and its keys.
#[derive(Clone, Copy, Debug)]
pub struct KeySection {
    /// Its name; `*` stands for a name that the user chooses. Empty: the top of the file.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

/// One line a key: name, unit, default, when a change takes effect, meaning.
macro_rules! section {
    ($name:literal, $about:literal, [$(($key:literal, $unit:ident, $default:literal, $change:ident, $meaning:literal),)*]) => {
        KeySection {
            name: $name,
            about: $about,
            keys: &[$(Key {
                name: $key,
                unit: Unit::$unit,
                default: $default,
                change: Change::$change,
                meaning: $meaning,
            }),*],
        }
    };
}

/// Every section.
#[rustfmt::skip]
pub const KEYS: &[KeySection] = &[
    section!("", "At the top of the file, before the first section.", [
        ("databases", Texts, r#"["*"]"#, Reload, "Databases that clients may ask for; `*` is any."),
        ("listen", Section, "", Restart, "Where clients come in."),
        ("limits", Section, "", Reload, "Bounds for clients and their requests."),
        ("auth", Section, "", Reload, "How clients prove who they are."),
        ("servers", Section, "", Reload, "The Postgres servers."),
        ("pools", Section, "", Reload, "The pools."),
        ("jobs", Section, "", Reload, "What a job statement is."),
        ("workers", Section, "", Reload, "Which sessions are background workers."),
        ("console", Section, "", Reload, "The console, as PgBouncer has one."),
        ("statistics", Section, "", Reload, "What is counted of each statement."),
        ("log", Section, "", Reload, "What is logged, and how."),
        ("metrics", Section, "", Reload, "Metrics."),
    ]),
    section!("listen", "Where clients come in.", [
        ("address", Address, r#""127.0.0.1:6432""#, Restart, "Postgres clients."),
        ("unix_socket_dir", Path, "none", Restart, "Directory of a Unix socket for Postgres clients, `.s.PGSQL.PORT` with the port of `address`; none without it."),
        ("unix_socket_mode", Mode, r#""0777""#, Restart, "Permissions of that socket. Clients authenticate all the same."),
        ("http", Address, r#""127.0.0.1:9930""#, Restart, "`/metrics`, `/healthz`, `/readyz`, `/api/v1` and the live page at `/`; `off` for none."),
        ("http_token", Text, "none", Reload, "The bearer token that actions over HTTP need (`POST /api/v1/..`: pause, resume, reconnect, kill, reload), 16 to 256 letters, digits and signs; without it there are none. Write `\"${BULKHEAD_HTTP_TOKEN}\"`, so that it does not stand in the file."),
        ("threads", Count, "1 up to two cores, else one less than there are cores", Restart, "Runtime threads."),
        ("shutdown_grace", Duration, r#""30s""#, Reload, "How long SIGTERM waits for transactions to finish."),
        ("tls", Section, "", Restart, "TLS for Postgres clients."),
    ]),
    section!("listen.tls", "TLS for Postgres clients (1.2 and 1.3). All files are PEM.", [
        ("mode", Text, "`prefer` with a certificate, else `disable`", Reload, "`disable`, `prefer` (clients may use it; `allow` is the same) or `require` (clients must use it)."),
        ("certificate", Path, "none", Reload, "The certificate, followed by its intermediate ones."),
        ("key", Path, "none", Reload, "Its private key."),
        ("client_ca", Path, "none", Reload, "Authorities of clients' certificates. Without it clients are not asked for one."),
        ("client_certificates", Text, r#""optional""#, Reload, "`optional`: a certificate that is shown must be valid. `require`: one must be shown. Passwords are asked for as well."),
    ]),
    section!("limits", "Bounds for clients and their requests.", [
        ("max_clients", Count, "10000", Reload, "Client connections, all together."),
        ("login_timeout", Duration, r#""15s""#, Reload, "From a client's connect to the end of its authentication."),
        ("orphan_timeout", Duration, r#""60s""#, Reload, "Statements whose client has left run to their end, as on a server, but no longer than this. What only reads is cancelled as soon as its client is gone for good."),
        ("request_buffer", Size, r#""1MiB""#, Reload, "Bytes of one request that are kept in memory until it is known where it goes."),
        ("request_buffer_total", Size, r#""256MiB""#, Reload, "Bytes of unfinished requests of all clients together, those of up to 16 KiB left out; whoever would need more is disconnected."),
        ("statement_bytes", Size, r#""256KiB""#, Reload, "Longer statements are not classified: they go to the primary."),
        ("verdict_cache", Count, "10000", Reload, "Statements whose classification is remembered."),
        ("prepared_per_client", Count, "1000", Reload, "Protocol-level prepared statements of one client."),
        ("prepared_bytes_per_client", Size, r#""16MiB""#, Reload, "What the names and texts of one client's prepared statements may take. One more is refused (53200)."),
        ("prepared_bytes", Size, r#""64MiB""#, Restart, "What the texts of prepared statements may take that clients share, all together. Those used least are no longer shared."),
        ("prepared_per_backend", Count, "500", Reload, "Protocol-level prepared statements on one server connection."),
        ("settings_per_client", Size, r#""64KiB""#, Reload, "Bytes of the settings of one client that are carried from connection to connection. A client that sets more keeps its connection (reason `large_settings`)."),
        ("catalog_refresh", Duration, r#""5s""#, Reload, "How often the server's catalog (functions, views over them) is looked at, and read again if it has changed past Bulkhead."),
        ("notifications_per_client", Size, r#""1MiB""#, Reload, "Notifications (LISTEN) that may wait for one client. One that is slower is disconnected. A client may listen to 1000 channels."),
        ("tcp_user_timeout", Duration, r#""30s""#, Reload, "A client or server that acknowledges nothing of what was sent to it for so long is given up, and its connection closed; one that only takes nothing for a while is not. `0s` for as long as the system tries (15 minutes)."),
        ("listen_on_gap", Text, r#""disconnect""#, Reload, "What happens to listening clients when the server connection that they share is lost, and notifications may be missed: `disconnect` ends them, as the loss of their own connection would; `warn` listens again and sends them a WARNING."),
    ]),
    section!("auth", "How clients prove who they are.", [
        ("method", Text, r#""scram-sha-256""#, Reload, "`scram-sha-256`, `md5` (users with a SCRAM verifier still use SCRAM) or `trust`: anybody who can reach the port is let in as any user that is named, with that user's rights, and nothing is proven. For tests, and networks where everybody may do everything."),
        ("users_file", Path, "none", Reload, "More users than those of the servers' URLs, as PgBouncer's `userlist.txt` has them."),
        ("reprove_after", Duration, r#""60s""#, Reload, "A login is proven at the server again, by a connection made for it, when its user's last one there is older; `0s` for every login. A user whom the server refuses is refused here too, and the idle connections are closed."),
    ]),
    section!("servers.*", "A Postgres server. One is called `primary`; `replica_1`, `replica_2` and `jobs` are the usual names of the others.", [
        ("url", Text, "must be given", Reload, "`postgres://user:password@host:port/database`, then parameters after `?` as in libpq: `sslmode`, `sslrootcert` (a file, or `system`), `sslcert` and `sslkey`, `sslnegotiation`, `channel_binding`, `connect_timeout` (seconds), `application_name` (of connections, until a session has one), `require_auth` (how the server may ask for a password: `none`, `password`, `md5`, `scram-sha-256`, or with `!` what it may not; without it all but the password itself on a connection that is neither encrypted nor of this machine), `host` (also a socket's directory) and `port`, `target_session_attrs`. Several hosts, `a:5432,b:5432`, are tried in this order whenever a connection is opened."),
        ("max_connections", Count, "the sum of its pools, and one for the health check", Reload, "Everything that Bulkhead opens there, all pools together. If it is no more than their sum, the health check has no connection of its own, and a server whose pools are full counts as well as long as it answers a new connection."),
        ("weight", Count, "1", Reload, "Of a replica: the share of reads that it gets beside others, 1 to 100. One that comes back begins with an eighth of it, and has all after 10 seconds."),
    ]),
    section!("pools.*", "A pool: `primary`, `replicas`, `jobs`, `workers`, or any other name, which a hint can ask for.", [
        ("servers", Texts, r#"["primary"]"#, Reload, "Where its connections are. Only the pool `replicas` may name several servers; by default these are all that are called `replica..`, and `jobs` is on the server `jobs` if there is one."),
        ("max_connections", Count, "20", Reload, "Connections to each server, of all users and databases together."),
        ("min_connections", Count, "0", Reload, "Connections that stay open even if idle."),
        ("max_waiting", Count, "500", Reload, "Sessions that may wait for a connection; one more is refused at once."),
        ("wait_timeout", Duration, r#""5s""#, Reload, "How long a session waits for a connection."),
        ("idle_timeout", Duration, r#""10m""#, Reload, "Idle connections are closed after this; `0s` for never."),
        ("max_lifetime", Duration, r#""1h""#, Reload, "Connections are closed at this age, less up to a tenth; `0s` for never."),
        ("connect_timeout", Duration, r#""5s""#, Reload, "Connecting and logging in to a server."),
        ("check_after", Duration, r#""30s""#, Reload, "A connection that was idle for longer is checked before it is used; `0s` for always."),
        ("close_timeout", Duration, r#""5s""#, Reload, "How long closing a connection in an orderly way may take."),
        ("mode", Text, r#""transaction""#, Reload, "`transaction`: a session gives its connection back after each transaction. `session`: it keeps its first one until it disconnects."),
        ("max_pinned", Count, "all but a quarter of `max_connections`, at least 1", Reload, "Connections that pinned sessions may keep. At the bound, statements that will pin their session wait for `wait_timeout` until another one gives its place up, and are refused then. Within a transaction, and of what is seen too late (a function that makes a temporary table), only what is left afterwards counts: such pins above the bound are counted and warned of, and end when they idle while others wait in vain."),
        ("pinned_idle_timeout", Duration, r#""0s""#, Reload, "A session that is pinned, in no transaction, and idle for longer is ended if all connections are taken and others wait; `0s` for never."),
        ("consistency", Text, r#""tables""#, Reload, "Of the pool `replicas`: which replica a read may use. `tables`: one that has what was written through Bulkhead to the tables that the read reaches. `session`: one that has what its session has written and seen. `strong`: one that has everything that was committed when the read came. `eventual`: any within `max_lag`. What no replica can serve, the primary does. A session may ask for another one (`SET bulkhead.consistency`), and a statement (`/* bulkhead: consistency=strong */`)."),
        ("causal_wait", Duration, r#""0s""#, Reload, "Of the pool `replicas`: how long a read may be held for a replica to have what it needs, before it goes to the primary."),
        ("sample_interval", Duration, r#""10ms""#, Reload, "Of the pool `replicas`: the primary, and each replica, is asked at most once in so long where its WAL is; not at all while nobody reads, or nobody writes."),
        ("max_lag", Duration, r#""10s""#, Reload, "Of the pool `replicas`: a replica that is behind by more serves no reads, until it is behind by less than half; `0s` for no bound."),
        ("max_lag_bytes", Size, r#""0B""#, Reload, "The same, in bytes of WAL; `0B` for no bound."),
    ]),
    section!("jobs", "What a job statement is: one that names an object of a preset or a rule.", [
        ("presets", Texts, r#"["auto"]"#, Reload, "Job systems that Bulkhead knows, such as `oban`. `\"auto\"`: those whose tables are found on the primary, unless `pools.jobs` is on another server; where no `pools.jobs` is written they get a quarter of `pools.primary.max_connections`."),
        ("schemas", Texts, "[]", Reload, "Schemas that their tables live in, if not the usual one."),
        ("ddl", Text, "", Reload, "Where definitions of job objects are made if `pools.jobs` is on another server: `\"jobs\"` there only, `\"both\"` on the primary as well, where an outbox, and whoever looks up types, needs them. `\"both\"` by default with an outbox, else `\"jobs\"`."),
        ("outbox", Flag, "false", Reload, "Whether jobs that are enqueued in a transaction of the primary are written there, to its table of the same name, and moved to the job database once they are committed. Needs `pools.jobs` on another server, a preset, and `bulkhead jobs init`. Takes one connection at each of the two servers beside those of the pools."),
        ("outbox_batch", Count, "1000", Reload, "Rows that are moved in one transaction."),
        ("outbox_poll", Duration, r#""1s""#, Reload, "How often the primary is asked for rows that came past Bulkhead, by triggers or other clients; rows that came through it are moved at once. And how often the relay tries again after a failure."),
        ("outbox_keep", Duration, r#""1h""#, Reload, "How long the job database remembers what was moved to it. A primary that comes back without its last commits, after a failover or from a backup, may lack no more than this, or jobs run twice."),
        ("rules", Section, "", Reload, "Objects of your own."),
    ]),
    section!("jobs.rules", "Job objects of your own; `*` stands for any letters, `?` for one.", [
        ("schemas", Texts, "[]", Reload, "Every object in these schemas."),
        ("tables", Texts, "[]", Reload, "Tables, with their indexes and sequences by name."),
        ("functions", Texts, "[]", Reload, "Functions."),
        ("channels", Texts, "[]", Reload, "Channels of LISTEN and NOTIFY."),
    ]),
    section!("workers", "Sessions of background workers: their statements that are no job statements use the pool `workers`.", [
        ("application_names", Texts, "[]", Reload, "Patterns of `application_name`, as in `jobs.rules`."),
        ("users", Texts, "[]", Reload, "Users."),
        ("comment_tags", Texts, "[]", Reload, "Patterns of tags in comments of statements, such as `job=*`, as sqlcommenter and Rails' query logs write them: statements with one are a worker's, whichever session sends them."),
        ("job_window", Duration, r#""0s""#, Reload, "A session that has taken, changed or ended jobs counts as a worker's for so long; `0s` for never."),
    ]),
    section!("console", "The console, as PgBouncer has one: a database that answers `SHOW POOLS` and the like.", [
        ("databases", Texts, r#"["bulkhead", "pgbouncer"]"#, Reload, "The databases that are the console; `[]` for none. Real databases of these names cannot be reached through Bulkhead."),
        ("admin_users", Texts, "[]", Reload, "Users that may do everything there. They prove who they are as all users do (`auth`). The operating system's user that Bulkhead runs as may, too, without a password, on the Unix socket as `bulkhead` or `pgbouncer`."),
        ("stats_users", Texts, "[]", Reload, "Users that may look: `SHOW`, and nothing else."),
        ("max_clients", Count, "20", Reload, "Consoles that may be open at once. They take none of `limits.max_clients`."),
        ("pause_timeout", Duration, r#""120s""#, Reload, "How long a statement waits for a pool that is paused, in place of `wait_timeout`."),
        ("pgbouncer_version", Text, r#""1.25""#, Reload, "The version of PgBouncer whose columns it has, for consoles that are opened from then on. `1.26` counts clients' logins at the end of `SHOW STATS` and its kin, which pgmetrics does not read."),
    ]),
    section!("statistics", "What is counted of each statement, without its literals: `SHOW QUERIES` and `SHOW SLOW` on the console.", [
        ("queries", Count, "500", Reload, "Statements that are counted, each by its user, database and pool. Those used least recently make room for others; `0` for none. One takes about 1 KiB."),
        ("query_bytes", Size, r#""1KiB""#, Reload, "Bytes of a statement's text that are kept."),
        ("slow_statement", Duration, r#""1s""#, Reload, "Requests that take this long, with waiting for a connection, are kept for `SHOW SLOW`; `0s` for none."),
        ("slow_statements", Count, "100", Reload, "So many of them, the last ones."),
    ]),
    section!("log", "What is logged, and how. Lines go to standard error.", [
        ("level", Text, r#""info""#, Reload, "`error`, `warn`, `info`, `debug` or `trace`. The variable `BULKHEAD_LOG` comes first at the start, and may hold filters of more kinds. `SET log.level = 'debug'` on the console changes it at once, SIGUSR1 to `debug` and back."),
        ("format", Text, r#""text""#, Reload, "`text`, or `json`: an object for each line."),
        ("slow_statement", Duration, r#""0s""#, Reload, "Requests that take this long, with waiting for a connection, are logged, up to 20 in a second (PostgreSQL's `log_min_duration_statement`); `0s` for none. Their text is without literals."),
        ("slow_sample_percent", Count, "100", Reload, "So many of a hundred of these (PostgreSQL's `log_statement_sample_rate`)."),
        ("slow_values", Flag, "false", Reload, "Whether literals and bound values of queries are logged as well, up to 1 KiB; never those of utility statements such as `ALTER ROLE`. They may be secrets."),
    ]),
    section!("metrics", "What `/metrics` tells (`listen.http`).", [
        ("pgbouncer_names", Flag, "false", Reload, "Whether `/metrics` also has the names of pgbouncer_exporter, `pgbouncer_..`, for dashboards and alerts that were made for it. A database of PgBouncer's is a pool there, as on the console."),
    ]),
];

/// What other poolers call it: (their name, our section, our key).
const ELSEWHERE: &[(&str, &str, &str)] = &[
    ("pool_size", "pools.*", "max_connections"),
    ("default_pool_size", "pools.*", "max_connections"),
    ("min_pool_size", "pools.*", "min_connections"),
    ("query_wait_timeout", "pools.*", "wait_timeout"),
    ("checkout_timeout", "pools.*", "wait_timeout"),
    ("server_idle_timeout", "pools.*", "idle_timeout"),
    ("server_lifetime", "pools.*", "max_lifetime"),
    ("server_connect_timeout", "pools.*", "connect_timeout"),
    ("pool_mode", "pools.*", "mode"),
    ("max_client_conn", "limits", "max_clients"),
    ("client_login_timeout", "limits", "login_timeout"),
    ("max_prepared_statements", "limits", "prepared_per_backend"),
    ("max_db_connections", "servers.*", "max_connections"),
    ("auth_type", "auth", "method"),
    ("auth_file", "auth", "users_file"),
    ("listen_addr", "listen", "address"),
    ("client_tls_sslmode", "listen.tls", "mode"),
    ("client_tls_cert_file", "listen.tls", "certificate"),
    ("client_tls_key_file", "listen.tls", "key"),
    ("client_tls_ca_file", "listen.tls", "client_ca"),
    ("server_tls_sslmode", "servers.*", "url"),
    ("server_tls_ca_file", "servers.*", "url"),
    ("sslmode", "servers.*", "url"),
    ("sslrootcert", "servers.*", "url"),
    ("password", "servers.*", "url"),
    ("host", "servers.*", "url"),
    ("port", "servers.*", "url"),
    ("user", "servers.*", "url"),
    ("listen_port", "listen", "address"),
    ("unix_socket_directory", "listen", "unix_socket_dir"),
    ("unix_socket_directories", "listen", "unix_socket_dir"),
    ("unix_socket_permissions", "listen", "unix_socket_mode"),
    ("log_min_duration_statement", "log", "slow_statement"),
    ("log_statement_sample_rate", "log", "slow_sample_percent"),
    ("log_level", "log", "level"),
    ("verbose", "log", "level"),
    ("admin_users", "console", "admin_users"),
    ("stats_users", "console", "stats_users"),
];

/// The names of a section's keys.
pub(super) fn of(section: &str) -> Vec<&'static str> {
    let keys = KEYS.iter().find(|of| of.name == section).map_or(&[][..], |of| of.keys);
    keys.iter().map(|key| key.name).collect()
}

/// The key of this whole name, such as `pools.jobs.max_connections`; `None` if there is none.
pub fn find(whole: &str) -> Option<&'static Key> {
    let (section, name) = whole.rsplit_once('.').unwrap_or(("", whole));
    let of = |section: &str| {
        let keys = KEYS.iter().find(|known| known.name == section)?.keys;
        keys.iter().find(|key| key.name == name && key.unit != Unit::Section)
    };
    // `pools.jobs` is described as `pools.*`.
    of(section).or_else(|| section.split_once('.').and_then(|(family, _)| of(&format!("{family}.*"))))
}

/// What to write in place of an unknown key.
pub(super) fn hint(section: &str, key: &str) -> String {
    if let Some(near) = nearest(key, &of(section)) {
        return format!("did you mean {near}?");
    }
    let elsewhere =
        ELSEWHERE.iter().find(|(theirs, ..)| *theirs == key).map(|&(_, section, key)| (section, key));
    let moved = || {
        let other = KEYS.iter().find(|other| other.keys.iter().any(|theirs| theirs.name == key))?;
        Some((other.name, key))
    };
    match elsewhere.or_else(moved) {
        Some((other, "url")) if other == section => "it is a part of url".to_owned(),
        Some((other, ours)) if other == section => format!("here it is called {ours}"),
        Some(("", ours)) => format!("{ours} stands at the top of the file, before the first [section]"),
        Some((other, ours)) => format!("write {ours} in [{}]", other.replace('*', "NAME")),
        None => format!("known here: {}", of(section).join(", ")),
    }
}

/// The candidate that differs least, if it differs by little.
pub(super) fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let bound = (word.chars().count() / 3).clamp(1, 4);
    candidates
        .iter()
        .map(|candidate| (edits(word, candidate), *candidate))
        .filter(|(edits, _)| *edits <= bound)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, on one row.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        row[0] = left;
        for (y, cell) in b.iter().zip(&mut row[1..]) {
            let best = (diagonal + usize::from(x != *y)).min(left + 1).min(*cell + 1);
            diagonal = *cell;
            *cell = best;
            left = best;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits() {
        for (a, b, expected) in [("", "", 0), ("a", "", 1), ("kitten", "sitting", 3), ("ab", "ba", 2)] {
            assert_eq!(edits(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn suggests() {
        assert_eq!(hint("pools.*", "max_conections"), "did you mean max_connections?");
        assert_eq!(hint("pools.*", "pool_size"), "here it is called max_connections");
        assert_eq!(hint("listen", "max_client_conn"), "write max_clients in [limits]");
        assert_eq!(hint("auth", "users"), "write users in [workers]");
        assert_eq!(hint("workers", "zzz"), "known here: application_names, users, comment_tags, job_window");
    }
}
