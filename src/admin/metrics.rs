//! The text of `/metrics`: what sessions and pools have counted, in Prometheus' words.
//!
//! Counts nothing itself. Every metric is an entry of the [`list`]; `docs/metrics.md` is made from it.

pub(super) mod list;
mod reference;

pub use reference::markdown;

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::{TextEncoder, proto::MetricFamily};

use super::{
    pgbouncer, pools, process,
    samples::{Sample, label, read, real, sample},
};
use crate::{
    backend::probe::PinReason,
    outbox::Figures,
    pool::Pool,
    shared::Snapshot,
    sql::Class,
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
    families.push(evictions(shared));
    families.extend(listening(shared));
    families.extend(pools::families(shared));
    families.extend(servers(shared));
    families.extend(replicas(shared));
    families.extend(outbox(shared));
    families.extend(process::families());
    if shared.console.names_metrics {
        families.extend(pgbouncer::families(shared));
    }
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
        list::OUTBOX_READY.is(u64::from(is_ready)),
        list::OUTBOX_WAITING.is(waiting),
        list::OUTBOX_LAG.of([real(&[], lag_millis as f64 / 1000.0)]),
        list::OUTBOX_RELAYED.is(relayed),
        list::OUTBOX_CONFLICTS.is(conflicts),
        list::OUTBOX_REFUSED.is(refused),
    ]
}

fn build_info() -> MetricFamily {
    list::BUILD_INFO.of([sample(&[("version", version::VERSION), ("commit", version::COMMIT)], 1)])
}

fn clients(shared: &Snapshot) -> [MetricFamily; 6] {
    let metrics = &shared.metrics;
    [
        list::CLIENTS.is(read(&metrics.clients)),
        list::MAX_CLIENTS.is(shared.limits.max_clients as u64),
        list::UNFINISHED.is(shared.kept.load(Ordering::Relaxed) as u64),
        list::LOGINS.is(read(&metrics.logins)),
        list::LOGIN_FAILURES.is(read(&metrics.login_failures)),
        list::CANCELS.is(read(&metrics.cancels)),
    ]
}

fn reloads(shared: &Snapshot) -> [MetricFamily; 3] {
    let reloads = &shared.metrics.reloads;
    [
        list::RELOADS.of([("ok", &reloads.ok), ("failed", &reloads.failed)]
            .map(|(result, count)| sample(&[("result", result)], read(count)))),
        list::RELOAD_OK.is(u64::from(!reloads.last_failed.load(Ordering::Relaxed))),
        list::RELOADED_AT.is(read(&reloads.success_at_seconds)),
    ]
}

fn traffic(shared: &Snapshot) -> [MetricFamily; 3] {
    let metrics = &shared.metrics;
    [
        list::CLIENT_RECEIVED.is(read(&metrics.traffic.received)),
        list::CLIENT_SENT.is(read(&metrics.traffic.sent)),
        list::CLIENT_ERRORS.of([("server", &metrics.server_errors), ("bulkhead", &metrics.own_errors)]
            .map(|(origin, count)| sample(&[("origin", origin)], read(count)))),
    ]
}

fn requests(shared: &Snapshot) -> [MetricFamily; 3] {
    let pools = || shared.pools.iter().zip(&shared.requests);
    let labels =
        |class: Class, pool: &Pool| [("class", class.label()), ("pool", &*pool.name)].map(label).to_vec();
    [
        list::REQUESTS.of(pools().flat_map(|(pool, requests)| {
            requests.read().map(|(class, reason, count)| {
                let labels = [("class", class.label()), ("pool", &pool.name), ("reason", reason.label())];
                sample(&labels, count)
            })
        })),
        list::REQUEST_DURATION.took(pools().flat_map(|(pool, requests)| {
            requests.durations().map(|(class, observed)| (labels(class, pool), observed))
        })),
        list::TRANSACTION_DURATION.took(pools().flat_map(|(pool, requests)| {
            requests.transactions().map(|(class, observed)| (labels(class, pool), observed))
        })),
    ]
}

fn pins(shared: &Snapshot) -> [MetricFamily; 2] {
    let by_reason = |counters: &[AtomicU64]| -> Vec<Sample> {
        let reasons = PinReason::ALL.into_iter().zip(counters);
        reasons.map(|(reason, count)| sample(&[("reason", reason.label())], read(count))).collect()
    };
    [
        list::SESSIONS_PINNED.of(by_reason(&shared.metrics.pinned)),
        list::SESSION_PINS.of(by_reason(&shared.metrics.pins)),
    ]
}

fn repeats(shared: &Snapshot) -> MetricFamily {
    let counts = shared.metrics.repeats.read();
    list::REPEATS.of(counts.map(|(reason, count)| sample(&[("reason", reason.label())], count)))
}

/// In the order of [`list::CACHES`].
fn evictions(shared: &Snapshot) -> MetricFamily {
    let (statistics, texts) = shared.queries.evictions();
    let counts = [
        shared.metrics.verdicts_evicted.read(),
        shared.statements.evictions().read(),
        shared.metrics.server_statements_evicted.read(),
        texts,
        statistics,
        shared.identities.evicted(),
        shared.catalogs.evicted(),
    ];
    list::EVICTIONS
        .of(list::CACHES.into_iter().zip(counts).map(|(cache, count)| sample(&[("cache", cache)], count)))
}

fn reads(shared: &Snapshot) -> MetricFamily {
    let counts = shared.metrics.reads.read();
    list::READS.of(counts.map(|(read_on, count)| {
        let (on, reason) = read_on.labels();
        sample(&[("on", on), ("reason", reason)], count)
    }))
}

fn replicas(shared: &Snapshot) -> [MetricFamily; 4] {
    let sampled = shared.causal.samples().newest_at();
    let replicas = || shared.health.servers.iter().filter(|server| server.role == Role::Replica);
    [
        list::REPLICA_LAG
            .of(replicas()
                .map(|server| real(&[("server", &server.name)], server.reads().lag().1.as_secs_f64()))),
        list::REPLICA_LAG_BYTES
            .of(replicas().map(|server| sample(&[("server", &server.name)], server.reads().lag().0))),
        list::REPLICA_SERVES
            .of(replicas()
                .map(|server| sample(&[("server", &server.name)], u64::from(server.reads().is_in())))),
        list::SAMPLE_AGE.of(sampled.map(|at| real(&[], at.elapsed().as_secs_f64()))),
    ]
}

fn listening(shared: &Snapshot) -> [MetricFamily; 7] {
    let stats = shared.listeners.stats();
    let one = |counter: &AtomicU64| [sample(&[], read(counter))];
    [
        list::LISTENERS.of(one(&stats.listeners)),
        list::CHANNELS.is(shared.listeners.channels() as u64),
        list::DELIVERED.of(one(&stats.delivered)),
        list::DROPPED.of(one(&stats.dropped)),
        list::OVERFLOWS.of(one(&stats.overflows)),
        list::LISTEN_LOSSES.of(one(&stats.losses)),
        list::LISTEN_RECONNECTS.of(one(&stats.reconnects)),
    ]
}

fn servers(shared: &Snapshot) -> [MetricFamily; 7] {
    let servers = &shared.health.servers;
    let recovery = |known| match known {
        Known::Up { in_recovery } => Some(u64::from(in_recovery)),
        Known::Unchecked | Known::Down { .. } => None,
    };
    [
        list::SERVER_UP.of(servers.iter().map(|server| {
            let is_up = !matches!(server.known(), Known::Down { .. });
            sample(&[("server", &server.name)], u64::from(is_up))
        })),
        list::SERVER_IN_RECOVERY.of(servers
            .iter()
            .filter_map(|server| Some(sample(&[("server", &server.name)], recovery(server.known())?)))),
        list::SERVER_CHECK_AGE.of(servers.iter().filter_map(|server| {
            Some(real(&[("server", &server.name)], server.checked_ago()?.as_secs_f64()))
        })),
        list::SERVER_HOST_CHANGES
            .of(servers.iter().map(|server| sample(&[("server", &server.name)], server.host_changes()))),
        list::SERVER_RIVALS.of(servers
            .iter()
            .map(|server| sample(&[("server", &server.name)], server.rivals().len() as u64))),
        list::SERVER_RECEIVED.of(servers
            .iter()
            .map(|server| sample(&[("server", &server.name)], read(&server.traffic().received)))),
        list::SERVER_SENT.of(servers
            .iter()
            .map(|server| sample(&[("server", &server.name)], read(&server.traffic().sent)))),
    ]
}

#[cfg(test)]
mod tests;
