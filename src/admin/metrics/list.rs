//! The list of all metrics, once: name, type, labels, unit and meaning. Samples are told under an entry of it, so there
//! is no metric that is not here, and `docs/metrics.md` is made from it ([`reference`](super::reference)).
//!
//! Values of labels are names from the configuration or words of the program, never a client's text. So the number of
//! series is bounded, by the configuration alone.

use crate::{
    backend::{connect_error::FailureKind, probe::PinReason, protocol::Transient},
    shared::counters::ReadOn,
    sql::{Class, Reason},
};

/// A metric, as it is described to people and to Prometheus.
#[derive(Clone, Copy, Debug)]
pub(in crate::admin) struct Described {
    pub(in crate::admin) name: &'static str,
    pub(in crate::admin) kind: Kind,
    pub(in crate::admin) labels: &'static [Label],
    pub(in crate::admin) unit: Unit,
    /// Whole sentences.
    pub(in crate::admin) meaning: &'static str,
}

/// The type of a metric, in Prometheus' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::admin) enum Kind {
    Gauge,
    Counter,
    /// Durations in buckets.
    Histogram,
}

/// The unit of a metric's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::admin) enum Unit {
    /// A number of things.
    Count,
    /// Yes or no: 1 or 0.
    Flag,
    Seconds,
    Bytes,
    /// A moment, in seconds since 1970.
    Moment,
}

/// A label of a metric, and what bounds its values.
#[derive(Clone, Copy, Debug)]
pub(in crate::admin) struct Label {
    pub(in crate::admin) name: &'static str,
    pub(in crate::admin) values: Values,
}

/// The values that a label can have.
#[derive(Clone, Copy, Debug)]
pub(in crate::admin) enum Values {
    /// Names of pools in the configuration.
    Pools,
    /// Names of servers in the configuration.
    Servers,
    /// One value, known from the start.
    One,
    /// Users that are logged in or hold connections, of whom no more than [`USERS_MAX`] are told apart.
    Users,
    /// Words of the program.
    Words(fn() -> Vec<&'static str>),
}

/// Memories of which the oldest, or what is used least, makes room for what is new.
pub(in crate::admin) const CACHES: [&str; 7] = [
    "verdicts",
    "prepared_statements",
    "server_statements",
    "query_texts",
    "query_statistics",
    "identities",
    "catalogs",
];

/// Users that are told apart.
pub(in crate::admin) const USERS_MAX: usize = 100;

impl Kind {
    /// The word for it.
    pub(in crate::admin) const fn name(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
        }
    }
}

impl Unit {
    /// The word for it.
    pub(in crate::admin) const fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Flag => "0 or 1",
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
            Self::Moment => "Unix time, seconds",
        }
    }
}

impl Described {
    /// Sets of labels that there can be, with so many pools and servers. A histogram's buckets are not counted.
    #[cfg(test)]
    pub(in crate::admin) fn series(&self, pools: usize, servers: usize) -> usize {
        let values = |label: &Label| match label.values {
            Values::Pools => pools,
            Values::Servers => servers,
            Values::One => 1,
            Values::Users => USERS_MAX + 1,
            Values::Words(words) => words().len(),
        };
        self.labels.iter().map(values).product()
    }
}

const fn words(name: &'static str, words: fn() -> Vec<&'static str>) -> Label {
    Label { name, values: Values::Words(words) }
}

const POOL: Label = Label { name: "pool", values: Values::Pools };
const SERVER: Label = Label { name: "server", values: Values::Servers };
const VERSION: Label = Label { name: "version", values: Values::One };
const COMMIT: Label = Label { name: "commit", values: Values::One };
const CLASS: Label = words("class", || Class::ALL.map(Class::label).to_vec());
const REASON: Label = words("reason", || Reason::ALL.iter().map(|reason| reason.label()).collect());
const PIN: Label = words("reason", || PinReason::ALL.map(PinReason::label).to_vec());
const READ_ON: Label = words("on", || vec!["replica", "primary"]);
const READ_WHY: Label = words("reason", || {
    let mut reasons = ReadOn::ALL.map(|read_on| read_on.labels().1).to_vec();
    reasons.sort_unstable();
    reasons.dedup();
    reasons
});
const TRANSIENT: Label = words("reason", || Transient::ALL.map(Transient::label).to_vec());
const FAILURE: Label = words("reason", || FailureKind::ALL.map(FailureKind::label).to_vec());
const REFUSAL: Label = words("reason", || vec!["full", "timeout", "unreachable", "closing"]);
const STATE: Label = words("state", || vec!["active", "idle", "connecting", "closing"]);
const ORIGIN: Label = words("origin", || vec!["server", "bulkhead"]);
const CACHE: Label = words("cache", || CACHES.to_vec());
const RESULT: Label = words("result", || vec!["ok", "failed"]);

/// One line a metric: its name here, type, name, labels, unit, meaning.
macro_rules! list {
    ($($constant:ident: $kind:ident $name:literal [$($label:ident),*] $unit:ident $meaning:literal;)*) => {
        $(
            #[doc = $meaning]
            pub(in crate::admin) const $constant: Described = Described {
                name: $name,
                kind: Kind::$kind,
                labels: &[$($label),*],
                unit: Unit::$unit,
                meaning: $meaning,
            };
        )*

        /// All of them, in the order in which they are told.
        pub(in crate::admin) const ALL: &[Described] = &[$($constant),*];
    };
}

list! {
    BUILD_INFO: Gauge "bulkhead_build_info" [VERSION, COMMIT] Flag "Always 1; the labels tell which version of Bulkhead is running.";

    CLIENTS: Gauge "bulkhead_clients" [] Count "Client connections that are open now, those still logging in included.";
    MAX_CLIENTS: Gauge "bulkhead_max_clients" [] Count "Client connections that may be open at once (limits.max_clients); more are refused.";
    UNFINISHED: Gauge "bulkhead_unfinished_request_bytes" [] Bytes "Bytes kept for requests of which more is to come, those of up to 16 KiB left out; bounded by limits.request_buffer_total.";
    LOGINS: Counter "bulkhead_client_logins_total" [] Count "Clients that have logged in since the start.";
    LOGIN_FAILURES: Counter "bulkhead_client_login_failures_total" [] Count "Clients that were turned away before or during login, for example for a wrong password.";
    CANCELS: Counter "bulkhead_cancel_requests_total" [] Count "Requests of clients to cancel a running statement that found it.";
    CLIENT_RECEIVED: Counter "bulkhead_client_received_bytes_total" [] Bytes "Bytes that clients sent after their login.";
    CLIENT_SENT: Counter "bulkhead_client_sent_bytes_total" [] Bytes "Bytes that clients were sent after their login.";
    CLIENT_ERRORS: Counter "bulkhead_client_errors_total" [ORIGIN] Count "Errors that clients got. server: of a statement, from the server; bulkhead: of Bulkhead itself.";

    RELOADS: Counter "bulkhead_reloads_total" [RESULT] Count "Reloads of the configuration. ok: carried out; failed: something was wrong, and nothing was changed.";
    RELOAD_OK: Gauge "bulkhead_config_last_reload_successful" [] Flag "1 if the last reload of the configuration was carried out, or there was none; 0 if it failed.";
    RELOADED_AT: Gauge "bulkhead_config_last_reload_success_timestamp_seconds" [] Moment "When the configuration in force was read.";

    REQUESTS: Counter "bulkhead_requests_total" [CLASS, POOL, REASON] Count "Requests of clients by the class of their SQL, the pool that served them, and why they have that class.";
    REQUEST_DURATION: Histogram "bulkhead_request_duration_seconds" [CLASS, POOL] Seconds "Time from the arrival of a request (what a client sends up to a Query or Sync: mostly one statement) to the end of its replies. Waiting for a server connection is in it; refused requests are not.";
    TRANSACTION_DURATION: Histogram "bulkhead_transaction_duration_seconds" [CLASS, POOL] Seconds "Time from the arrival of a transaction's first statement to the end of the replies to its last, by the class of the first that is not neutral. A statement outside of a transaction is one of its own. Those whose connection was lost are not in it.";
    SESSIONS_PINNED: Gauge "bulkhead_sessions_pinned" [PIN] Count "Clients that keep a server connection between transactions now, by the state that ties them to it.";
    SESSION_PINS: Counter "bulkhead_session_pins_total" [PIN] Count "Times that a client began to keep its server connection between transactions, by the state that tied it to it.";
    REPEATS: Counter "bulkhead_repeats_total" [TRANSIENT] Count "Reads that were run once more on another connection, by why the first one failed.";
    READS: Counter "bulkhead_replica_reads_total" [READ_ON, READ_WHY] Count "Reads that might use a replica, by where they ran and why. On a replica, fresh: enough at once; held: until it was. On the primary, fresh_write: a table was written; floor: the session has seen more; lag: a strong read; no_replica: none serves reads. On either, transaction: it was opened there before.";
    EVICTIONS: Counter "bulkhead_cache_evictions_total" [CACHE] Count "Entries of bounded memories that have made room for others; a number that goes on growing says that the bound is too low for what clients send. verdicts: classes of texts (limits.verdict_cache); prepared_statements: statements that clients share (limits.prepared_bytes, limits.verdict_cache); server_statements: statements closed on a server connection (limits.prepared_per_backend); query_texts, query_statistics: texts and entries of SHOW QUERIES (statistics.queries); identities, catalogs: users and databases that nobody uses now.";

    LISTENERS: Gauge "bulkhead_listeners" [] Count "Clients that listen for notifications now.";
    CHANNELS: Gauge "bulkhead_listen_channels" [] Count "Channels that clients listen to now, each counted once for its database.";
    DELIVERED: Counter "bulkhead_notifications_delivered_total" [] Count "Notifications handed to clients, each counted for every client.";
    DROPPED: Counter "bulkhead_notifications_dropped_total" [] Count "Notifications that clients did not get because too many waited for them.";
    OVERFLOWS: Counter "bulkhead_listener_overflows_total" [] Count "Clients disconnected because too many notifications waited for them.";
    LISTEN_LOSSES: Counter "bulkhead_listen_losses_total" [] Count "Server connections that listened for clients and were lost.";
    LISTEN_RECONNECTS: Counter "bulkhead_listen_reconnects_total" [] Count "Server connections that listened in the place of a lost one.";

    POOL_CONNECTIONS: Gauge "bulkhead_pool_connections" [POOL, SERVER, STATE] Count "Server connections that take a place in the pool now. active: used by a client; idle: free for use; connecting: being opened; closing: being closed.";
    POOL_MAX_CONNECTIONS: Gauge "bulkhead_pool_max_connections" [POOL, SERVER] Count "Server connections that the pool may have on the server at once.";
    POOL_WAITING: Gauge "bulkhead_pool_waiting" [POOL, SERVER] Count "Clients that wait for a server connection now.";
    POOL_MAX_WAITING: Gauge "bulkhead_pool_max_waiting" [POOL, SERVER] Count "Clients that may wait for a busy server connection at once; more are refused.";
    POOL_WAIT: Histogram "bulkhead_pool_wait_seconds" [POOL, SERVER] Seconds "Time that clients waited until they were given a server connection. Refused ones are not in it.";
    POOL_REFUSALS: Counter "bulkhead_pool_refusals_total" [POOL, SERVER, REFUSAL] Count "Requests that got an error instead of a server connection. full: too many clients waited; timeout: waited too long; unreachable: the server could not be reached or refused the login; closing: Bulkhead went down while they waited. What the pool replicas refuses is served by the primary.";
    POOL_PINNED: Gauge "bulkhead_pool_pinned" [POOL, SERVER, PIN] Count "Server connections that clients keep between transactions now, by what ties them to it.";
    POOL_MAX_PINNED: Gauge "bulkhead_pool_max_pinned" [POOL, SERVER] Count "Server connections that clients may keep between transactions at once.";
    POOL_PIN_REFUSALS: Counter "bulkhead_pool_pin_refusals_total" [POOL, SERVER] Count "Statements that were refused because they would have kept one server connection too many.";
    POOL_PINS_OVER_BOUND: Counter "bulkhead_pool_pins_over_bound_total" [POOL, SERVER] Count "Times that a client began to keep a server connection above the bound, after a statement that did not show that it would.";
    POOL_PINNED_TIME: Counter "bulkhead_pool_pinned_seconds_total" [POOL, SERVER] Seconds "Time that server connections were kept between transactions, counted when it ends.";
    CONNECTS: Counter "bulkhead_backend_connects_total" [POOL, SERVER] Count "Server connections opened since the start.";
    CONNECT_FAILURES: Counter "bulkhead_backend_connect_failures_total" [POOL, SERVER, FAILURE] Count "Attempts to open a server connection that failed. unreachable: the network or the name lookup; tls: no TLS, or not as asked for; timeout: took too long; refused: the server answered with an error; authentication: the password or its method; protocol: the server made no sense.";
    LIFETIME: Histogram "bulkhead_backend_lifetime_seconds" [POOL, SERVER] Seconds "Age of server connections when they are closed.";
    DISCARDS: Counter "bulkhead_backend_discards_total" [POOL, SERVER] Count "Server connections closed because their use ended in the middle of something, for example with the client's departure.";

    SERVER_UP: Gauge "bulkhead_server_up" [SERVER] Flag "0 while the server cannot be connected to or did not answer when it was last asked; 1 otherwise.";
    SERVER_IN_RECOVERY: Gauge "bulkhead_server_in_recovery" [SERVER] Flag "1 while the server is in recovery, as replicas are, and takes no writes. Absent while that is not known.";
    SERVER_CHECK_AGE: Gauge "bulkhead_server_check_age_seconds" [SERVER] Seconds "Time since the server was last asked how it is. It grows while all of its pools are full.";
    SERVER_HOST_CHANGES: Counter "bulkhead_server_host_changes_total" [SERVER] Count "Times that the server went over to another of its hosts.";
    SERVER_RIVALS: Gauge "bulkhead_server_rival_hosts" [SERVER] Count "Hosts of the server that take writes as well as the one in use, and get none.";
    SERVER_RECEIVED: Counter "bulkhead_server_received_bytes_total" [SERVER] Bytes "Bytes that the server sent, logins left out.";
    SERVER_SENT: Counter "bulkhead_server_sent_bytes_total" [SERVER] Bytes "Bytes that the server was sent, logins left out.";

    REPLICA_LAG: Gauge "bulkhead_replica_lag_seconds" [SERVER] Seconds "How long what the replica has not replayed has been there, as it was last known.";
    REPLICA_LAG_BYTES: Gauge "bulkhead_replica_lag_bytes" [SERVER] Bytes "Bytes of WAL that the replica has not replayed, as it was last known.";
    REPLICA_SERVES: Gauge "bulkhead_replica_serves_reads" [SERVER] Flag "1 while the replica answers and is within its bounds on lag; 0 otherwise.";
    SAMPLE_AGE: Gauge "bulkhead_replica_sample_age_seconds" [] Seconds "Time since the primary last told where its WAL is, which reads on replicas go by; it is asked while somebody reads on replicas and somebody writes. Absent before the first time, and after a change of its connection or timeline until the next.";

    OUTBOX_READY: Gauge "bulkhead_outbox_ready" [] Flag "1 if jobs may be enqueued on the primary: both sides were found as they must be.";
    OUTBOX_WAITING: Gauge "bulkhead_outbox_waiting_rows" [] Count "Jobs on the primary that have not been moved to the job database; 100000 stands for more, too.";
    OUTBOX_LAG: Gauge "bulkhead_outbox_lag_seconds" [] Seconds "How long the first of these jobs has waited.";
    OUTBOX_RELAYED: Counter "bulkhead_outbox_relayed_total" [] Count "Jobs that this instance has moved to the job database.";
    OUTBOX_CONFLICTS: Counter "bulkhead_outbox_conflicts_total" [] Count "Of these, jobs that the job database had one of the same unique key for, and left out.";
    OUTBOX_REFUSED: Counter "bulkhead_outbox_refused_total" [] Count "Jobs that the job database refused, and that were set aside in bulkhead.refused on the primary.";

    PROCESS_CPU: Counter "process_cpu_seconds_total" [] Seconds "CPU time used, user and system.";
    PROCESS_OPEN_FDS: Gauge "process_open_fds" [] Count "File descriptors in use.";
    PROCESS_MAX_FDS: Gauge "process_max_fds" [] Count "File descriptors that may be in use at once.";
    PROCESS_RESIDENT: Gauge "process_resident_memory_bytes" [] Bytes "Resident memory.";
    PROCESS_VIRTUAL: Gauge "process_virtual_memory_bytes" [] Bytes "Address space in use.";
    PROCESS_STARTED: Gauge "process_start_time_seconds" [] Moment "When the process was started.";
}
