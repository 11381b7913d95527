//! The text of `/metrics`: what sessions and pools have counted, in Prometheus' words.
//!
//! Counts nothing itself. Labels are members of enums and names from the configuration, never a client's text, so
//! that the number of series is bounded.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use prometheus::{
    TextEncoder,
    proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType},
};

use crate::{
    backend::probe::PinReason,
    pool::{Figures, Limits, Pins, ServerPool, Stats, WAIT_BUCKETS_SECONDS},
    session::Shared,
};

/// The format's name and version.
pub(super) const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Everything there is to tell, at this moment.
pub(super) fn text(shared: &Shared) -> String {
    let members: Vec<Member<'_>> = shared
        .pools
        .iter()
        .flat_map(|pool| pool.members.iter().map(|member| Member::read(&pool.name, member)))
        .collect();
    let mut families = vec![build_info()];
    families.extend(clients(shared));
    families.extend(reloads(shared));
    families.push(requests(shared));
    families.extend(pins(shared));
    families.extend(bounds(&members));
    families.extend(waits(&members));
    families.extend(pool_pins(&members));
    families.extend(backends(&members));
    families.push(servers(shared));
    // A name without samples says nothing, and the encoder refuses it.
    families.retain(|family| !family.get_metric().is_empty());
    TextEncoder::new()
        .encode_to_string(&families)
        .expect("each family has a name and samples, and a String takes every byte")
}

// === The families ===

fn build_info() -> MetricFamily {
    gauges(
        "bulkhead_build_info",
        "Always 1; the label tells which version of Bulkhead is running.",
        [sample(&[("version", env!("CARGO_PKG_VERSION"))], 1)],
    )
}

fn clients(shared: &Shared) -> [MetricFamily; 5] {
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

fn reloads(shared: &Shared) -> [MetricFamily; 3] {
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

fn requests(shared: &Shared) -> MetricFamily {
    let pools = shared.pools.iter().zip(&shared.requests);
    counters(
        "bulkhead_requests_total",
        "Requests of clients by the class of their SQL, the pool that served them, and why they have that class.",
        pools.flat_map(|(pool, requests)| {
            requests.read().map(|(class, reason, count)| {
                let labels = [("class", class.label()), ("pool", &pool.name), ("reason", reason.label())];
                sample(&labels, count)
            })
        }),
    )
}

fn pins(shared: &Shared) -> [MetricFamily; 2] {
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
        family(
            MetricType::HISTOGRAM,
            "bulkhead_pool_wait_seconds",
            "Time that clients waited until they were given a server connection, in seconds. Refused ones are not \
             in it.",
            members.iter().map(|member| {
                let (cumulative, count, sum_seconds) = member.stats.wait.read();
                let mut metric = Metric::from_label(member.labels(None));
                metric.set_histogram(histogram(&cumulative, count, sum_seconds));
                metric
            }),
        ),
        counters(
            "bulkhead_pool_refusals_total",
            "Requests that got an error instead of a server connection. full: too many clients waited; timeout: \
             waited too long; unreachable: the server could not be reached or refused the login.",
            members.iter().flat_map(refusals),
        ),
    ]
}

fn pool_pins(members: &[Member<'_>]) -> [MetricFamily; 5] {
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

fn backends(members: &[Member<'_>]) -> [MetricFamily; 3] {
    [
        counters(
            "bulkhead_backend_connects_total",
            "Server connections opened since the start.",
            each(members, |member| read(&member.stats.connects)),
        ),
        counters(
            "bulkhead_backend_connect_failures_total",
            "Attempts to open a server connection that failed, login included.",
            each(members, |member| read(&member.stats.connect_failures)),
        ),
        counters(
            "bulkhead_backend_discards_total",
            "Server connections closed because their use ended in the middle of something, for example with the \
             client's departure.",
            each(members, |member| read(&member.stats.discarded)),
        ),
    ]
}

fn servers(shared: &Shared) -> MetricFamily {
    // Pools on one server share its gate.
    let members = shared.pools.iter().flat_map(|pool| &pool.members);
    let up: BTreeMap<&str, bool> =
        members.map(|member| (member.server_name.as_str(), !member.gate().is_down())).collect();
    gauges(
        "bulkhead_server_up",
        "0 while the server cannot be reached: the last attempt to connect failed; 1 otherwise.",
        up.into_iter().map(|(server, is_up)| sample(&[("server", server)], u64::from(is_up))),
    )
}

// === Members ===

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
        Sample { labels: self.labels(own), value }
    }
}

/// One sample for each member.
fn each(members: &[Member<'_>], value: impl Fn(&Member<'_>) -> u64) -> impl Iterator<Item = Sample> {
    members.iter().map(move |member| member.sample(None, value(member)))
}

// === Building blocks ===

struct Sample {
    labels: Vec<LabelPair>,
    value: u64,
}

fn sample(labels: &[(&str, &str)], value: u64) -> Sample {
    Sample { labels: labels.iter().copied().map(label).collect(), value }
}

fn label((name, value): (&str, &str)) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// What may go up and down.
fn gauges(name: &str, help: &str, samples: impl IntoIterator<Item = Sample>) -> MetricFamily {
    let metrics = samples.into_iter().map(|Sample { labels, value }| {
        let (mut metric, mut gauge) = (Metric::from_label(labels), Gauge::default());
        gauge.set_value(value as f64);
        metric.set_gauge(gauge);
        metric
    });
    family(MetricType::GAUGE, name, help, metrics)
}

/// What only goes up, from the start of the process.
fn counters(name: &str, help: &str, samples: impl IntoIterator<Item = Sample>) -> MetricFamily {
    let metrics = samples.into_iter().map(|Sample { labels, value }| {
        let (mut metric, mut counter) = (Metric::from_label(labels), Counter::default());
        counter.set_value(value as f64);
        metric.set_counter(counter);
        metric
    });
    family(MetricType::COUNTER, name, help, metrics)
}

fn histogram(cumulative: &[u64], count: u64, sum_seconds: f64) -> Histogram {
    let bucket = |(bound, count): (f64, u64)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(count);
        bucket
    };
    let bounds = WAIT_BUCKETS_SECONDS.into_iter().zip(cumulative.iter().copied());
    let mut histogram = Histogram::default();
    histogram.set_bucket(bounds.map(bucket).collect());
    // What is observed while the atomics are read may be in a bucket and not in the count yet.
    histogram.set_sample_count(cumulative.last().map_or(count, |last| count.max(*last)));
    histogram.set_sample_sum(sum_seconds);
    histogram
}

fn family(
    kind: MetricType,
    name: &str,
    help: &str,
    metrics: impl IntoIterator<Item = Metric>,
) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics.into_iter().collect());
    family
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use super::{super::fixture::shared, *};
    use crate::sql::{Class, Reason};

    /// A sample as the text has it: name, labels without `le`, `le`, value.
    type Line<'a> = (&'a str, String, Option<&'a str>, f64);

    /// `name{label="value",..} number`, strictly.
    fn parse_sample(line: &str) -> Line<'_> {
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').expect("a closing brace")),
            None => (series, ""),
        };
        let is_name = |text: &str| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        };
        assert!(is_name(name), "{line}");
        let (mut others, mut bound) = (String::new(), None);
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (name, value) = label.split_once('=').expect("label=value");
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).expect("quotes");
            assert!(is_name(name) && !value.is_empty() && !value.contains(['"', '\\']), "{line}");
            if name == "le" {
                bound = Some(value);
            } else {
                others.push_str(label);
                others.push(',');
            }
        }
        (name, others, bound, value.parse().expect("a number"))
    }

    /// The histogram that one set of labels has: bounds ascend, counts too, +Inf is the count.
    fn check_histogram(name: &str, samples: &[Line<'_>]) {
        let sets: HashSet<&String> = samples.iter().map(|(_, labels, ..)| labels).collect();
        for labels in sets {
            let of_set = |suffix: &str| -> Vec<(Option<&str>, f64)> {
                let wanted = format!("{name}{suffix}");
                let samples = samples.iter().filter(|sample| sample.0 == wanted && sample.1 == *labels);
                samples.map(|sample| (sample.2, sample.3)).collect()
            };
            let buckets: Vec<(f64, f64)> = of_set("_bucket")
                .into_iter()
                .map(|(bound, count)| (bound.expect("le").parse().expect("a bound"), count))
                .collect();
            assert!(buckets.is_sorted_by(|one, next| one.0 < next.0 && one.1 <= next.1), "{buckets:?}");
            let (last_bound, last_count) = *buckets.last().expect("a bucket");
            assert!(last_bound.is_infinite());
            let (count, sum) = (of_set("_count"), of_set("_sum"));
            assert_eq!(count, [(None, last_count)], "{labels}");
            assert!(matches!(sum[..], [(None, seconds)] if seconds >= 0.0), "{labels}");
        }
    }

    /// Each family has HELP, TYPE and samples, in this order and once; no series is there twice.
    fn check_format(text: &str) {
        assert!(text.ends_with('\n'));
        let (mut families, mut series) = (HashSet::new(), HashSet::new());
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let (name, help) =
                line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')).expect("HELP");
            assert!(name.starts_with("bulkhead_") && help.ends_with('.') && !help.contains("  "), "{line}");
            assert!(families.insert(name), "{name} twice");
            let type_line = lines.next().and_then(|line| line.strip_prefix("# TYPE ")).expect("TYPE");
            let kind = type_line.strip_prefix(name).and_then(|rest| rest.strip_prefix(' ')).expect("a type");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
            let mut samples = Vec::new();
            while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
                let sample = parse_sample(line);
                assert!(series.insert((sample.0, sample.1.clone(), sample.2)), "{line} twice");
                samples.push(sample);
            }
            assert!(!samples.is_empty(), "{name}");
            match kind {
                "histogram" => check_histogram(name, &samples),
                "gauge" | "counter" => {
                    assert!(samples.iter().all(|sample| sample.0 == name && sample.2.is_none()));
                }
                _ => panic!("{kind}"),
            }
        }
    }

    #[test]
    fn the_format_is_right_at_the_start() {
        let text = text(&shared());
        check_format(&text);
        assert!(!text.contains("bulkhead_requests_total"), "nothing has occurred");
        assert!(
            text.contains(&format!("bulkhead_build_info{{version=\"{}\"}} 1\n", env!("CARGO_PKG_VERSION")))
        );
        assert!(text.contains("bulkhead_server_up{server=\"main\"} 1\n"));
    }

    #[test]
    fn what_was_counted_is_told_under_its_labels() {
        let shared = shared();
        let member = &shared.pools[1].members[1];
        member.stats().wait.observe_none();
        member.stats().wait.observe(Duration::from_millis(20));
        member.stats().wait.observe(Duration::from_secs(6));
        member.stats().refused_full.store(3, Ordering::Relaxed);
        member.stats().refused_timeout.store(4, Ordering::Relaxed);
        member.stats().refused_unreachable.store(5, Ordering::Relaxed);
        member.stats().connects.store(6, Ordering::Relaxed);
        member.stats().connect_failures.store(7, Ordering::Relaxed);
        member.stats().discarded.store(8, Ordering::Relaxed);
        member.gate().failed("connection refused");
        let metrics = &shared.metrics;
        shared.requests[2].count(Class::Job, Reason::JobObject);
        metrics.clients.store(9, Ordering::Relaxed);
        metrics.logins.store(10, Ordering::Relaxed);
        metrics.login_failures.store(11, Ordering::Relaxed);
        metrics.cancels.store(12, Ordering::Relaxed);
        metrics.pinned[PinReason::TempObjects as usize].store(13, Ordering::Relaxed);
        metrics.pins[PinReason::Listen as usize].store(14, Ordering::Relaxed);

        let text = text(&shared);
        check_format(&text);
        let expected = r#"
bulkhead_clients 9
bulkhead_max_clients 1000
bulkhead_client_logins_total 10
bulkhead_client_login_failures_total 11
bulkhead_cancel_requests_total 12
bulkhead_requests_total{class="job",pool="jobs",reason="job_object"} 1
bulkhead_sessions_pinned{reason="temp_objects"} 13
bulkhead_session_pins_total{reason="listen"} 14
bulkhead_pool_connections{pool="primary",server="main",state="active"} 0
bulkhead_pool_connections{pool="replicas",server="other",state="closing"} 0
bulkhead_pool_max_connections{pool="replicas",server="other"} 24
bulkhead_pool_waiting{pool="replicas",server="other"} 0
bulkhead_pool_max_waiting{pool="replicas",server="other"} 500
bulkhead_pool_wait_seconds_bucket{pool="replicas",server="other",le="0.0005"} 1
bulkhead_pool_wait_seconds_bucket{pool="replicas",server="other",le="0.01"} 1
bulkhead_pool_wait_seconds_bucket{pool="replicas",server="other",le="0.025"} 2
bulkhead_pool_wait_seconds_bucket{pool="replicas",server="other",le="5"} 2
bulkhead_pool_wait_seconds_bucket{pool="replicas",server="other",le="+Inf"} 3
bulkhead_pool_wait_seconds_sum{pool="replicas",server="other"} 6.02
bulkhead_pool_wait_seconds_count{pool="replicas",server="other"} 3
bulkhead_pool_refusals_total{pool="replicas",server="other",reason="full"} 3
bulkhead_pool_refusals_total{pool="replicas",server="other",reason="timeout"} 4
bulkhead_pool_refusals_total{pool="replicas",server="other",reason="unreachable"} 5
bulkhead_backend_connects_total{pool="replicas",server="other"} 6
bulkhead_backend_connect_failures_total{pool="replicas",server="other"} 7
bulkhead_backend_discards_total{pool="replicas",server="other"} 8
bulkhead_server_up{server="main"} 1
bulkhead_server_up{server="other"} 0"#;
        let lines: HashSet<&str> = text.lines().collect();
        for line in expected.trim_start().lines() {
            assert!(lines.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_count_read_too_early_is_never_below_the_last_bucket() {
        let torn = histogram(&[1; WAIT_BUCKETS_SECONDS.len()], 0, 0.0);
        assert_eq!(torn.get_sample_count(), 1);
        let over = histogram(&[1; WAIT_BUCKETS_SECONDS.len()], 4, 0.0);
        assert_eq!(over.get_sample_count(), 4);
    }
}
