//! What `/metrics` tells of the pools, one sample for each pool on each of its servers.

use prometheus::proto::{LabelPair, MetricFamily};

use super::samples::{Sample, counters, gauges, histograms, label, read};
use crate::{
    backend::{connect_error::FailureKind, probe::PinReason},
    pool::{Figures, Limits, Pins, ServerPool, Stats},
    shared::Snapshot,
};

/// The families of the pools.
pub(super) fn families(shared: &Snapshot) -> Vec<MetricFamily> {
    let members: Vec<Member<'_>> = shared
        .pools
        .iter()
        .flat_map(|pool| pool.members.iter().map(|member| Member::read(&pool.name, member)))
        .collect();
    let mut families = Vec::new();
    families.extend(bounds(&members));
    families.extend(waits(&members));
    families.extend(pins(&members));
    families.extend(backends(&members));
    families
}

fn bounds(members: &[Member<'_>]) -> [MetricFamily; 2] {
    [
        gauges(
            "bulkhead_pool_connections",
            "Server connections that take a place in the pool now. active: used by a client; idle: free for use; \
             connecting: being opened; closing: being closed.",
            members.iter().flat_map(|member| {
                let Figures { leased, idle, connecting, closing, .. } = member.figures;
                [("active", leased), ("idle", idle), ("connecting", connecting), ("closing", closing)]
                    .map(|(state, count)| member.sample(Some(("state", state)), count as u64))
            }),
        ),
        gauges(
            "bulkhead_pool_max_connections",
            "Server connections that the pool may have on the server at once.",
            each(members, |member| member.figures.max_connections as u64),
        ),
    ]
}

fn waits(members: &[Member<'_>]) -> [MetricFamily; 4] {
    let refusals = |member: &Member<'_>| {
        let stats = member.stats;
        [
            ("full", &stats.refused_full),
            ("timeout", &stats.refused_timeout),
            ("unreachable", &stats.refused_unreachable),
            ("closing", &stats.refused_closing),
        ]
        .map(|(reason, count)| member.sample(Some(("reason", reason)), read(count)))
    };
    [
        gauges(
            "bulkhead_pool_waiting",
            "Clients that wait for a server connection now.",
            each(members, |member| member.figures.waiting as u64),
        ),
        gauges(
            "bulkhead_pool_max_waiting",
            "Clients that may wait for a busy server connection at once; more are refused.",
            each(members, |member| member.limits.max_waiting as u64),
        ),
        histograms(
            "bulkhead_pool_wait_seconds",
            "Time that clients waited until they were given a server connection, in seconds. Refused ones are not \
             in it.",
            members.iter().map(|member| (member.labels(None), member.stats.wait.read())),
        ),
        counters(
            "bulkhead_pool_refusals_total",
            "Requests that got an error instead of a server connection. full: too many clients waited; timeout: \
             waited too long; unreachable: the server could not be reached or refused the login; closing: Bulkhead went \
             down while they waited.",
            members.iter().flat_map(refusals),
        ),
    ]
}

fn pins(members: &[Member<'_>]) -> [MetricFamily; 5] {
    let by_reason = |member: &Member<'_>| {
        let reasons = PinReason::ALL.into_iter().zip(&member.pins.by_reason);
        let samples =
            reasons.map(|(reason, count)| member.sample(Some(("reason", reason.label())), read(count)));
        samples.collect::<Vec<_>>()
    };
    [
        gauges(
            "bulkhead_pool_pinned",
            "Server connections that clients keep between transactions now, by what ties them to it.",
            members.iter().flat_map(by_reason),
        ),
        gauges(
            "bulkhead_pool_max_pinned",
            "Server connections that clients may keep between transactions at once.",
            each(members, |member| member.limits.max_pinned as u64),
        ),
        counters(
            "bulkhead_pool_pin_refusals_total",
            "Statements that were refused because they would have kept one server connection too many.",
            each(members, |member| read(&member.pins.refused)),
        ),
        counters(
            "bulkhead_pool_pins_over_bound_total",
            "Times that a client began to keep a server connection above the bound, after a statement that did not \
             show that it would.",
            each(members, |member| read(&member.pins.over_bound)),
        ),
        counters(
            "bulkhead_pool_pinned_seconds_total",
            "Time that server connections were kept between transactions, in seconds, counted when it ends.",
            each(members, |member| read(&member.pins.ended_nanos) / 1_000_000_000),
        ),
    ]
}

fn backends(members: &[Member<'_>]) -> [MetricFamily; 4] {
    let failures = |member: &Member<'_>| {
        let kinds = FailureKind::ALL.into_iter().zip(&member.stats.connect_failures);
        let of_kind =
            |(kind, count): (FailureKind, &_)| member.sample(Some(("reason", kind.label())), read(count));
        kinds.map(of_kind).collect::<Vec<_>>()
    };
    [
        counters(
            "bulkhead_backend_connects_total",
            "Server connections opened since the start.",
            each(members, |member| read(&member.stats.connects)),
        ),
        counters(
            "bulkhead_backend_connect_failures_total",
            "Attempts to open a server connection that failed. unreachable: the network or the name lookup; tls: no TLS, or not as asked for; timeout: \
             took too long; refused: the server answered with an error; authentication: the password or its \
             method; protocol: the server made no sense.",
            members.iter().flat_map(failures),
        ),
        histograms(
            "bulkhead_backend_lifetime_seconds",
            "Age of server connections when they are closed, in seconds.",
            members.iter().map(|member| (member.labels(None), member.stats.lifetime.read())),
        ),
        counters(
            "bulkhead_backend_discards_total",
            "Server connections closed because their use ended in the middle of something, for example with the \
             client's departure.",
            each(members, |member| read(&member.stats.discarded)),
        ),
    ]
}

/// A pool on one server, read once so that its figures belong together.
struct Member<'a> {
    pool: &'a str,
    server: &'a str,
    figures: Figures,
    limits: Limits,
    stats: &'a Stats,
    pins: &'a Pins,
}

impl<'a> Member<'a> {
    fn read(pool: &'a str, member: &'a ServerPool) -> Self {
        let (figures, limits, stats) = (member.figures(), member.limits(), member.stats());
        Self { pool, server: &member.server_name, figures, limits, stats, pins: member.pins() }
    }

    fn labels(&self, own: Option<(&str, &str)>) -> Vec<LabelPair> {
        [("pool", self.pool), ("server", self.server)].into_iter().chain(own).map(label).collect()
    }

    fn sample(&self, own: Option<(&str, &str)>, value: u64) -> Sample {
        Sample { labels: self.labels(own), value: value as f64 }
    }
}

/// One sample for each member.
fn each(members: &[Member<'_>], value: impl Fn(&Member<'_>) -> u64) -> impl Iterator<Item = Sample> {
    members.iter().map(move |member| member.sample(None, value(member)))
}
