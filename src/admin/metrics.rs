//! The text of `/metrics`: what sessions and pools have counted, in Prometheus' words.
//!
//! Counts nothing itself. Labels are members of enums and names from the configuration, never a client's text, so
//! that the number of series is bounded.
//!
//! A test holds this table complete:
//!
//! | name | type | labels | meaning |
//! |---|---|---|---|
//! | `bulkhead_build_info` | gauge | `version`, `commit` | always 1; the labels tell what is running |
//! | `bulkhead_clients` | gauge |  | client connections that are open now, logins under way included |
//! | `bulkhead_max_clients` | gauge |  | bound of the same (`limits.max_clients`) |
//! | `bulkhead_unfinished_request_bytes` | gauge |  | bytes kept for requests of which more is to come, those of up to 16 KiB left out; bounded by `limits.request_buffer_total` |
//! | `bulkhead_client_logins_total` | counter |  | clients that have logged in |
//! | `bulkhead_client_login_failures_total` | counter |  | clients that were turned away before or during login |
//! | `bulkhead_cancel_requests_total` | counter |  | cancel requests that found what they cancel |
//! | `bulkhead_client_received_bytes_total` | counter |  | bytes that clients sent after their login |
//! | `bulkhead_client_sent_bytes_total` | counter |  | bytes that clients were sent after their login |
//! | `bulkhead_client_errors_total` | counter | `origin` | errors that clients got, from the `server` or from `bulkhead` itself |
//! | `bulkhead_reloads_total` | counter | `result` | reloads of the configuration: `ok`, `failed` |
//! | `bulkhead_config_last_reload_successful` | gauge |  | 1 if the last reload was carried out, or there was none |
//! | `bulkhead_config_last_reload_success_timestamp_seconds` | gauge |  | when the configuration in force was read, in Unix time |
//! | `bulkhead_requests_total` | counter | `class`, `pool`, `reason` | requests by class, pool, and why they have that class |
//! | `bulkhead_request_duration_seconds` | histogram | `class`, `pool` | from a request's arrival to the end of its replies; waiting in the pool included |
//! | `bulkhead_sessions_pinned` | gauge | `reason` | clients that keep a server connection between transactions |
//! | `bulkhead_repeats_total` | counter | `reason` | reads that were run once more on another connection |
//! | `bulkhead_replica_reads_total` | counter | `on`, `reason` | reads that might use a replica: `on` a `replica`, `fresh` enough at once or `held` until it was; `on` the `primary` by `fresh_write` (a table was written), `floor` (the session has seen more), `lag` (a strong read), `no_replica`; on either in a READ ONLY `transaction` that was opened there before |
//! | `bulkhead_session_pins_total` | counter | `reason` | times that a client began to do so |
//! | `bulkhead_listeners` | gauge |  | clients that listen for notifications |
//! | `bulkhead_listen_channels` | gauge |  | channels that they listen to, each counted once for its database |
//! | `bulkhead_notifications_delivered_total` | counter |  | notifications handed to clients, counted for each client |
//! | `bulkhead_notifications_dropped_total` | counter |  | notifications that clients did not get because too many waited for them |
//! | `bulkhead_listener_overflows_total` | counter |  | clients disconnected for that |
//! | `bulkhead_listen_losses_total` | counter |  | server connections that listened for clients and were lost |
//! | `bulkhead_listen_reconnects_total` | counter |  | server connections that took the place of these |
//! | `bulkhead_pool_connections` | gauge | `pool`, `server`, `state` | server connections, `active`, `idle`, `connecting` or `closing` |
//! | `bulkhead_pool_max_connections` | gauge | `pool`, `server` | bound of the sum of these |
//! | `bulkhead_pool_waiting` | gauge | `pool`, `server` | clients that wait for a server connection |
//! | `bulkhead_pool_max_waiting` | gauge | `pool`, `server` | bound of the same |
//! | `bulkhead_pool_wait_seconds` | histogram | `pool`, `server` | time until a client was given a server connection |
//! | `bulkhead_pool_refusals_total` | counter | `pool`, `server`, `reason` | requests that got an error instead: `full`, `timeout`, `unreachable` |
//! | `bulkhead_backend_connects_total` | counter | `pool`, `server` | server connections opened |
//! | `bulkhead_backend_connect_failures_total` | counter | `pool`, `server`, `reason` | attempts to open one that failed: `unreachable`, `tls`, `timeout`, `refused`, `authentication`, `protocol` |
//! | `bulkhead_backend_lifetime_seconds` | histogram | `pool`, `server` | age of server connections at their end |
//! | `bulkhead_backend_discards_total` | counter | `pool`, `server` | server connections closed in the middle of something |
//! | `bulkhead_pool_pinned` | gauge | `pool`, `server`, `reason` | server connections that clients keep between transactions |
//! | `bulkhead_pool_max_pinned` | gauge | `pool`, `server` | bound of the sum of these |
//! | `bulkhead_pool_pin_refusals_total` | counter | `pool`, `server` | statements refused because they would have kept one too many |
//! | `bulkhead_pool_pins_over_bound_total` | counter | `pool`, `server` | times that the bound was exceeded, by a statement that did not show what it would do |
//! | `bulkhead_pool_pinned_seconds_total` | counter | `pool`, `server` | time that server connections were kept, counted when it ends |
//! | `bulkhead_server_up` | gauge | `server` | 1 if the server answers or has not been asked yet |
//! | `bulkhead_server_in_recovery` | gauge | `server` | 1 if the server takes no writes; absent while that is not known |
//! | `bulkhead_replica_lag_seconds` | gauge | `server` | how long what the replica has not replayed has been there, as it was last known |
//! | `bulkhead_replica_lag_bytes` | gauge | `server` | bytes of WAL that it has not replayed, as it was last known |
//! | `bulkhead_replica_serves_reads` | gauge | `server` | 1 if it answers and is within its bounds on lag |
//! | `bulkhead_replica_sample_age_seconds` | gauge |  | time since the primary last told where its WAL is; it is asked while somebody reads on replicas and somebody writes. Absent before the first time, and after a change of its connection or timeline until the next |
//! | `bulkhead_server_check_age_seconds` | gauge | `server` | time since the server was last asked |
//! | `bulkhead_server_host_changes_total` | counter | `server` | times that it went over to another of its hosts |
//! | `bulkhead_server_rival_hosts` | gauge | `server` | hosts of it that take writes as well, and get none |
//! | `bulkhead_server_received_bytes_total` | counter | `server` | bytes that the server sent |
//! | `bulkhead_server_sent_bytes_total` | counter | `server` | bytes that the server was sent |
//! | `bulkhead_outbox_ready` | gauge |  | 1 if jobs may be enqueued on the primary: both sides were found as they must be |
//! | `bulkhead_outbox_waiting_rows` | gauge |  | jobs on the primary that have not been moved to the job database; 100000 stands for more, too |
//! | `bulkhead_outbox_lag_seconds` | gauge |  | how long the first of them has waited |
//! | `bulkhead_outbox_relayed_total` | counter |  | jobs that this instance has moved |
//! | `bulkhead_outbox_conflicts_total` | counter |  | of these, jobs that the job database had one of the same unique key for, and left out |
//! | `bulkhead_outbox_refused_total` | counter |  | jobs that the job database refused, and that were set aside in `bulkhead.refused` |
//! | `process_cpu_seconds_total` | counter |  | CPU time used, user and system |
//! | `process_open_fds` | gauge |  | file descriptors in use |
//! | `process_max_fds` | gauge |  | bound of the same |
//! | `process_resident_memory_bytes` | gauge |  | memory in use |
//! | `process_virtual_memory_bytes` | gauge |  | address space in use |
//! | `process_start_time_seconds` | gauge |  | when the process was started, in Unix time |

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::{TextEncoder, proto::MetricFamily};

use super::{
    pools, process,
    samples::{Sample, counters, gauges, histograms, label, read, real, sample},
};
use crate::{
    backend::probe::PinReason,
    outbox::Figures,
    shared::Snapshot,
    topology::{Known, Role},
    version,
};

/// The format's name and version.
pub(super) const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Everything there is to tell, at this moment.
pub(super) fn text(shared: &Snapshot) -> String {
    let mut families = vec![build_info()];
    families.extend(clients(shared));
    families.extend(reloads(shared));
    families.extend(traffic(shared));
    families.extend(requests(shared));
    families.extend(pins(shared));
    families.extend([repeats(shared), reads(shared)]);
    families.extend(listening(shared));
    families.extend(pools::families(shared));
    families.extend(servers(shared));
    families.extend(replicas(shared));
    families.extend(outbox(shared));
    families.extend(process::families());
    // A name without samples says nothing, and the encoder refuses it.
    families.retain(|family| !family.get_metric().is_empty());
    TextEncoder::new()
        .encode_to_string(&families)
        .expect("each family has a name and samples, and a String takes every byte")
}

// === The families ===

fn outbox(shared: &Snapshot) -> Vec<MetricFamily> {
    let Some(outbox) = &shared.outbox else { return Vec::new() };
    let Figures { is_ready, waiting, lag_millis, relayed, conflicts, refused } = outbox.figures();
    vec![
        gauges(
            "bulkhead_outbox_ready",
            "1 if jobs may be enqueued on the primary: both sides were found as they must be.",
            [sample(&[], u64::from(is_ready))],
        ),
        gauges(
            "bulkhead_outbox_waiting_rows",
            "Jobs on the primary that have not been moved to the job database; 100000 stands for more, too.",
            [sample(&[], waiting)],
        ),
        gauges(
            "bulkhead_outbox_lag_seconds",
            "How long the first of these jobs has waited.",
            [real(&[], lag_millis as f64 / 1000.0)],
        ),
        counters(
            "bulkhead_outbox_relayed_total",
            "Jobs that this instance has moved to the job database.",
            [sample(&[], relayed)],
        ),
        counters(
            "bulkhead_outbox_conflicts_total",
            "Of these, jobs that the job database had one of the same unique key for, and left out.",
            [sample(&[], conflicts)],
        ),
        counters(
            "bulkhead_outbox_refused_total",
            "Jobs that the job database refused, and that were set aside in bulkhead.refused on the primary.",
            [sample(&[], refused)],
        ),
    ]
}

fn build_info() -> MetricFamily {
    gauges(
        "bulkhead_build_info",
        "Always 1; the labels tell which version of Bulkhead is running.",
        [sample(&[("version", version::VERSION), ("commit", version::COMMIT)], 1)],
    )
}

fn clients(shared: &Snapshot) -> [MetricFamily; 6] {
    let metrics = &shared.metrics;
    [
        gauges(
            "bulkhead_clients",
            "Client connections that are open now, those still logging in included.",
            [sample(&[], read(&metrics.clients))],
        ),
        gauges(
            "bulkhead_max_clients",
            "Client connections that may be open at once; more are refused.",
            [sample(&[], shared.limits.max_clients as u64)],
        ),
        gauges(
            "bulkhead_unfinished_request_bytes",
            "Bytes kept for requests of which more is to come; those of up to 16 KiB left out.",
            [sample(&[], shared.kept.load(Ordering::Relaxed) as u64)],
        ),
        counters(
            "bulkhead_client_logins_total",
            "Clients that have logged in since the start.",
            [sample(&[], read(&metrics.logins))],
        ),
        counters(
            "bulkhead_client_login_failures_total",
            "Clients that were turned away before or during login, for example for a wrong password.",
            [sample(&[], read(&metrics.login_failures))],
        ),
        counters(
            "bulkhead_cancel_requests_total",
            "Requests of clients to cancel a running statement that found it.",
            [sample(&[], read(&metrics.cancels))],
        ),
    ]
}

fn reloads(shared: &Snapshot) -> [MetricFamily; 3] {
    let reloads = &shared.metrics.reloads;
    [
        counters(
            "bulkhead_reloads_total",
            "Reloads of the configuration. ok: carried out; failed: something was wrong, and nothing was changed.",
            [("ok", &reloads.ok), ("failed", &reloads.failed)]
                .map(|(result, count)| sample(&[("result", result)], read(count))),
        ),
        gauges(
            "bulkhead_config_last_reload_successful",
            "1 if the last reload of the configuration was carried out, or there was none; 0 if it failed.",
            [sample(&[], u64::from(!reloads.last_failed.load(Ordering::Relaxed)))],
        ),
        gauges(
            "bulkhead_config_last_reload_success_timestamp_seconds",
            "When the configuration in force was read, in seconds since 1970.",
            [sample(&[], read(&reloads.success_at_seconds))],
        ),
    ]
}

fn traffic(shared: &Snapshot) -> [MetricFamily; 3] {
    let metrics = &shared.metrics;
    [
        counters(
            "bulkhead_client_received_bytes_total",
            "Bytes that clients sent after their login.",
            [sample(&[], read(&metrics.traffic.received))],
        ),
        counters(
            "bulkhead_client_sent_bytes_total",
            "Bytes that clients were sent after their login.",
            [sample(&[], read(&metrics.traffic.sent))],
        ),
        counters(
            "bulkhead_client_errors_total",
            "Errors that clients got. server: of a statement, from the server; bulkhead: of Bulkhead itself.",
            [("server", &metrics.server_errors), ("bulkhead", &metrics.own_errors)]
                .map(|(origin, count)| sample(&[("origin", origin)], read(count))),
        ),
    ]
}

fn requests(shared: &Snapshot) -> [MetricFamily; 2] {
    let pools = || shared.pools.iter().zip(&shared.requests);
    [
        counters(
            "bulkhead_requests_total",
            "Requests of clients by the class of their SQL, the pool that served them, and why they have that class.",
            pools().flat_map(|(pool, requests)| {
                requests.read().map(|(class, reason, count)| {
                    let labels = [("class", class.label()), ("pool", &pool.name), ("reason", reason.label())];
                    sample(&labels, count)
                })
            }),
        ),
        histograms(
            "bulkhead_request_duration_seconds",
            "Time from the arrival of a request to the end of its replies, in seconds. Waiting for a server connection is \
         in it; refused requests are not.",
            pools().flat_map(|(pool, requests)| {
                requests.durations().map(|(class, observed)| {
                    ([("class", class.label()), ("pool", &*pool.name)].map(label).to_vec(), observed)
                })
            }),
        ),
    ]
}

fn pins(shared: &Snapshot) -> [MetricFamily; 2] {
    let by_reason = |counters: &[AtomicU64]| -> Vec<Sample> {
        let reasons = PinReason::ALL.into_iter().zip(counters);
        reasons.map(|(reason, count)| sample(&[("reason", reason.label())], read(count))).collect()
    };
    [
        gauges(
            "bulkhead_sessions_pinned",
            "Clients that keep a server connection between transactions now, by the state that ties them to it.",
            by_reason(&shared.metrics.pinned),
        ),
        counters(
            "bulkhead_session_pins_total",
            "Times that a client began to keep its server connection between transactions, by the state that tied \
             it to it.",
            by_reason(&shared.metrics.pins),
        ),
    ]
}

fn repeats(shared: &Snapshot) -> MetricFamily {
    let counts = shared.metrics.repeats.read();
    counters(
        "bulkhead_repeats_total",
        "Reads that were run once more on another connection, by why the first one failed.",
        counts.map(|(reason, count)| sample(&[("reason", reason.label())], count)),
    )
}

fn reads(shared: &Snapshot) -> MetricFamily {
    let counts = shared.metrics.reads.read();
    counters(
        "bulkhead_replica_reads_total",
        "Reads that might use a replica, by where they ran and why.",
        counts.map(|(read_on, count)| {
            let (on, reason) = read_on.labels();
            sample(&[("on", on), ("reason", reason)], count)
        }),
    )
}

fn replicas(shared: &Snapshot) -> [MetricFamily; 4] {
    let sampled = shared.causal.samples().newest_at();
    let replicas = || shared.health.servers.iter().filter(|server| server.role == Role::Replica);
    [
        gauges(
            "bulkhead_replica_lag_seconds",
            "How long what the replica has not replayed has been there, in seconds, as it was last known.",
            replicas().map(|server| real(&[("server", &server.name)], server.reads().lag().1.as_secs_f64())),
        ),
        gauges(
            "bulkhead_replica_lag_bytes",
            "Bytes of WAL that the replica has not replayed, as it was last known.",
            replicas().map(|server| sample(&[("server", &server.name)], server.reads().lag().0)),
        ),
        gauges(
            "bulkhead_replica_serves_reads",
            "1 while the replica answers and is within its bounds on lag; 0 otherwise.",
            replicas().map(|server| sample(&[("server", &server.name)], u64::from(server.reads().is_in()))),
        ),
        gauges(
            "bulkhead_replica_sample_age_seconds",
            "Time since the primary last told where its WAL is, which reads on replicas go by, in seconds.",
            sampled.map(|at| real(&[], at.elapsed().as_secs_f64())),
        ),
    ]
}

fn listening(shared: &Snapshot) -> [MetricFamily; 7] {
    let stats = shared.listeners.stats();
    let one = |counter: &AtomicU64| [sample(&[], read(counter))];
    [
        gauges("bulkhead_listeners", "Clients that listen for notifications now.", one(&stats.listeners)),
        gauges(
            "bulkhead_listen_channels",
            "Channels that clients listen to now, each counted once for its database.",
            [sample(&[], shared.listeners.channels() as u64)],
        ),
        counters(
            "bulkhead_notifications_delivered_total",
            "Notifications handed to clients, each counted for every client.",
            one(&stats.delivered),
        ),
        counters(
            "bulkhead_notifications_dropped_total",
            "Notifications that clients did not get because too many waited for them.",
            one(&stats.dropped),
        ),
        counters(
            "bulkhead_listener_overflows_total",
            "Clients disconnected because too many notifications waited for them.",
            one(&stats.overflows),
        ),
        counters(
            "bulkhead_listen_losses_total",
            "Server connections that listened for clients and were lost.",
            one(&stats.losses),
        ),
        counters(
            "bulkhead_listen_reconnects_total",
            "Server connections that listened in the place of a lost one.",
            one(&stats.reconnects),
        ),
    ]
}

fn servers(shared: &Snapshot) -> [MetricFamily; 7] {
    let servers = &shared.health.servers;
    let recovery = |known| match known {
        Known::Up { in_recovery } => Some(u64::from(in_recovery)),
        Known::Unchecked | Known::Down { .. } => None,
    };
    [
        gauges(
            "bulkhead_server_up",
            "0 while the server cannot be connected to or did not answer when it was last asked; 1 otherwise.",
            servers.iter().map(|server| {
                let is_up = !matches!(server.known(), Known::Down { .. });
                sample(&[("server", &server.name)], u64::from(is_up))
            }),
        ),
        gauges(
            "bulkhead_server_in_recovery",
            "1 while the server is in recovery, as replicas are, and takes no writes. Absent while that is not known.",
            servers
                .iter()
                .filter_map(|server| Some(sample(&[("server", &server.name)], recovery(server.known())?))),
        ),
        gauges(
            "bulkhead_server_check_age_seconds",
            "Time since the server was last asked how it is, in seconds. It grows while all of its pools are full.",
            servers.iter().filter_map(|server| {
                Some(real(&[("server", &server.name)], server.checked_ago()?.as_secs_f64()))
            }),
        ),
        counters(
            "bulkhead_server_host_changes_total",
            "Times that the server went over to another of its hosts.",
            servers.iter().map(|server| sample(&[("server", &server.name)], server.host_changes())),
        ),
        gauges(
            "bulkhead_server_rival_hosts",
            "Hosts of the server that take writes as well as the one in use, and get none.",
            servers.iter().map(|server| sample(&[("server", &server.name)], server.rivals().len() as u64)),
        ),
        counters(
            "bulkhead_server_received_bytes_total",
            "Bytes that the server sent, logins left out.",
            servers
                .iter()
                .map(|server| sample(&[("server", &server.name)], read(&server.traffic().received))),
        ),
        counters(
            "bulkhead_server_sent_bytes_total",
            "Bytes that the server was sent, logins left out.",
            servers.iter().map(|server| sample(&[("server", &server.name)], read(&server.traffic().sent))),
        ),
    ]
}

#[cfg(test)]
mod tests;
