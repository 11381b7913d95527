//! What `/metrics` says, held against the text format, the counters, and its own documentation.

use std::{
    collections::{BTreeMap, HashSet},
    sync::atomic::Ordering,
    time::Duration,
};

use super::{
    list::{Described, Kind, Unit},
    *,
};
use crate::{
    admin::fixture::shared,
    backend::connect_error::FailureKind,
    causal::samples::Era,
    sql::{Class, Reason},
};

/// A sample as the text has it: name, labels without `le`, `le`, value.
type Line<'a> = (&'a str, String, Option<&'a str>, f64);

/// `name{label="value",..} number`, strictly.
fn parse_sample(line: &str) -> Line<'_> {
    let (series, value) = line.rsplit_once(' ').expect("a value");
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}').expect("a closing brace")),
        None => (series, ""),
    };
    let is_name =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    assert!(is_name(name), "{line}");
    let (mut others, mut bound) = (String::new(), None);
    // A value may contain commas.
    let labels = labels.strip_suffix('"').unwrap_or(labels);
    for label in labels.split("\",").filter(|label| !label.is_empty()) {
        let (name, value) = label.split_once("=\"").expect("label=\"value\"");
        assert!(is_name(name) && !value.contains(['"', '\\']), "{line}");
        if name == "le" {
            bound = Some(value);
        } else {
            others.push_str(label);
            others.push_str("\",");
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
        let (name, help) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')).expect("HELP");
        let known = ["bulkhead_", "process_", "pgbouncer_"].iter().any(|prefix| name.starts_with(prefix));
        assert!(known && help.ends_with(['.', ')']) && !help.contains("  "), "{line}");
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
    let build = format!("bulkhead_build_info{{version=\"{}\",commit=\"", env!("CARGO_PKG_VERSION"));
    assert!(text.contains(&build), "{text}");
    assert!(text.contains("bulkhead_server_up{server=\"main\"} 1\n"));
}

/// The lines of these counts.
const COUNTED: &str = r#"
bulkhead_clients 9
bulkhead_max_clients 1000
bulkhead_unfinished_request_bytes 0
bulkhead_client_logins_total 10
bulkhead_client_login_failures_total 11
bulkhead_cancel_requests_total 12
bulkhead_requests_total{class="job",pool="jobs",reason="job_object"} 1
bulkhead_request_duration_seconds_bucket{class="job",pool="jobs",le="0.0025"} 0
bulkhead_request_duration_seconds_bucket{class="job",pool="jobs",le="0.005"} 1
bulkhead_request_duration_seconds_bucket{class="job",pool="jobs",le="+Inf"} 1
bulkhead_request_duration_seconds_sum{class="job",pool="jobs"} 0.003
bulkhead_request_duration_seconds_count{class="write",pool="primary"} 2
bulkhead_transaction_duration_seconds_count{class="job",pool="jobs"} 1
bulkhead_transaction_duration_seconds_bucket{class="write",pool="primary",le="0.01"} 0
bulkhead_transaction_duration_seconds_bucket{class="write",pool="primary",le="0.025"} 1
bulkhead_transaction_duration_seconds_count{class="write",pool="primary"} 1
bulkhead_client_received_bytes_total 15
bulkhead_client_sent_bytes_total 16
bulkhead_client_errors_total{origin="server"} 17
bulkhead_client_errors_total{origin="bulkhead"} 18
bulkhead_server_sent_bytes_total{server="main"} 19
bulkhead_server_received_bytes_total{server="main"} 0
bulkhead_server_in_recovery{server="main"} 0
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
bulkhead_pool_refusals_total{pool="replicas",server="other",reason="closing"} 9
bulkhead_backend_connects_total{pool="replicas",server="other"} 6
bulkhead_backend_connect_failures_total{pool="replicas",server="other",reason="refused"} 7
bulkhead_backend_lifetime_seconds_bucket{pool="replicas",server="other",le="10"} 0
bulkhead_backend_lifetime_seconds_bucket{pool="replicas",server="other",le="60"} 1
bulkhead_backend_discards_total{pool="replicas",server="other"} 8
bulkhead_server_up{server="main"} 1
bulkhead_server_up{server="other"} 0"#;

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
    member.stats().refused_closing.store(9, Ordering::Relaxed);
    member.stats().connects.store(6, Ordering::Relaxed);
    member.stats().connect_failures[FailureKind::Refused as usize].store(7, Ordering::Relaxed);
    member.stats().lifetime.observe(Duration::from_secs(20));
    member.stats().discarded.store(8, Ordering::Relaxed);
    member.gate().failed("connection refused");
    let metrics = &shared.metrics;
    shared.requests[2].count(Class::Job, Reason::JobObject);
    shared.requests[2].note_whole(Class::Job, Duration::from_millis(3));
    shared.requests[0].note_part(Class::Write, Duration::from_millis(3));
    shared.requests[0].note_part(Class::Neutral, Duration::from_millis(3));
    shared.requests[0].note_part(Class::Write, Duration::from_millis(4));
    shared.requests[0].note_transaction(Class::Write, Duration::from_millis(20));
    metrics.traffic.count_received(15);
    metrics.traffic.count_sent(16);
    metrics.server_errors.store(17, Ordering::Relaxed);
    metrics.own_errors.store(18, Ordering::Relaxed);
    shared.health.servers[0].set(Known::Up { in_recovery: false });
    shared.pools[0].members[0].server().traffic.count_sent(19);
    metrics.clients.store(9, Ordering::Relaxed);
    metrics.logins.store(10, Ordering::Relaxed);
    metrics.login_failures.store(11, Ordering::Relaxed);
    metrics.cancels.store(12, Ordering::Relaxed);
    metrics.pinned[PinReason::TempObjects as usize].store(13, Ordering::Relaxed);
    metrics.pins[PinReason::Listen as usize].store(14, Ordering::Relaxed);

    let era = Era { connection: 1, timeline: 1, cluster: 1 };
    (1..=2).for_each(|time| shared.causal.note_sample(era, time, time));

    let text = text(&shared);
    check_format(&text);
    check_listed(&text);
    let lines: HashSet<&str> = text.lines().collect();
    for line in COUNTED.trim_start().lines() {
        assert!(lines.contains(line), "{line} is not in\n{text}");
    }
}

/// The list has every name with its type and labels, and no other.
fn check_listed(text: &str) {
    let mut exported: BTreeMap<&str, (&str, Vec<String>)> = BTreeMap::new();
    let mut family = "";
    for line in text.lines() {
        if let Some(of) = line.strip_prefix("# TYPE ") {
            let (name, kind) = of.split_once(' ').expect("a name and a type");
            family = name;
            exported.insert(family, (kind, Vec::new()));
        } else if !line.starts_with('#') {
            let (_, labels, ..) = parse_sample(line);
            let names = labels.split("\",").filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
            exported.get_mut(family).expect("TYPE comes first").1 = names.collect();
        }
    }
    let labels = |metric: &Described| metric.labels.iter().map(|label| label.name.to_owned()).collect();
    let all = list::ALL.iter().copied().chain(pgbouncer::all());
    let listed: BTreeMap<_, _> = all.map(|one| (one.name, (one.kind.name(), labels(&one)))).collect();
    assert_eq!(exported, listed);
    let (pools, servers) = (3, 2);
    for metric in list::ALL.iter().copied().chain(pgbouncer::all()) {
        let is_of = |line: &&str| {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            name == metric.name || name.strip_suffix("_count") == Some(metric.name)
        };
        let series = text.lines().filter(is_of).count();
        assert!((1..=metric.series(pools, servers)).contains(&series), "{}: {series}", metric.name);
    }
}

#[test]
fn names_say_their_units() {
    let mut names = HashSet::new();
    for metric in list::ALL.iter().copied().chain(pgbouncer::all()) {
        let bare = metric.name.trim_end_matches("_total");
        let is_time = matches!(metric.unit, Unit::Seconds | Unit::Moment);
        assert_eq!(is_time, bare.ends_with("_seconds"), "{}", metric.name);
        assert_eq!(metric.unit == Unit::Bytes, bare.ends_with("_bytes"), "{}", metric.name);
        assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
        assert!(metric.kind != Kind::Histogram || metric.unit == Unit::Seconds, "{}", metric.name);
        assert!(metric.meaning.len() > 4 && !metric.meaning.contains('|'), "{}", metric.meaning);
        assert!(names.insert(metric.name), "{} twice", metric.name);
    }
}

#[test]
fn the_page_of_all_metrics_is_up_to_date() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(page == markdown(), "run: bulkhead metrics >docs/metrics.md");
}
