//! What `/metrics` tells of the pools, one sample for each pool on each of its servers.

use prometheus::proto::{LabelPair, MetricFamily};

use super::{
    metrics::list,
    samples::{Sample, label, read},
};
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
        list::POOL_CONNECTIONS.of(members.iter().flat_map(|member| {
            let Figures { leased, idle, connecting, closing, .. } = member.figures;
            [("active", leased), ("idle", idle), ("connecting", connecting), ("closing", closing)]
                .map(|(state, count)| member.sample(Some(("state", state)), count as u64))
        })),
        list::POOL_MAX_CONNECTIONS.of(each(members, |member| member.figures.max_connections as u64)),
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
        list::POOL_WAITING.of(each(members, |member| member.figures.waiting as u64)),
        list::POOL_MAX_WAITING.of(each(members, |member| member.limits.max_waiting as u64)),
        list::POOL_WAIT.took(members.iter().map(|member| (member.labels(None), member.stats.wait.read()))),
        list::POOL_REFUSALS.of(members.iter().flat_map(refusals)),
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
        list::POOL_PINNED.of(members.iter().flat_map(by_reason)),
        list::POOL_MAX_PINNED.of(each(members, |member| member.limits.max_pinned as u64)),
        list::POOL_PIN_REFUSALS.of(each(members, |member| read(&member.pins.refused))),
        list::POOL_PINS_OVER_BOUND.of(each(members, |member| read(&member.pins.over_bound))),
        list::POOL_PINNED_TIME.of(each(members, |member| read(&member.pins.ended_nanos) / 1_000_000_000)),
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
        list::CONNECTS.of(each(members, |member| read(&member.stats.connects))),
        list::CONNECT_FAILURES.of(members.iter().flat_map(failures)),
        list::LIFETIME.took(members.iter().map(|member| (member.labels(None), member.stats.lifetime.read()))),
        list::DISCARDS.of(each(members, |member| read(&member.stats.discarded))),
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
