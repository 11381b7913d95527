//! Building blocks of `/metrics`: samples, and families of them.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use crate::metrics::Observed;

/// One value and its labels.
pub(super) struct Sample {
    pub(super) labels: Vec<LabelPair>,
    pub(super) value: f64,
}

pub(super) fn sample(labels: &[(&str, &str)], value: u64) -> Sample {
    real(labels, value as f64)
}

/// A sample that need not be a whole number.
pub(super) fn real(labels: &[(&str, &str)], value: f64) -> Sample {
    Sample { labels: labels.iter().copied().map(label).collect(), value }
}

pub(super) fn label((name, value): (&str, &str)) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

pub(super) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// What may go up and down.
pub(super) fn gauges(name: &str, help: &str, samples: impl IntoIterator<Item = Sample>) -> MetricFamily {
    let metrics = samples.into_iter().map(|Sample { labels, value }| {
        let (mut metric, mut gauge) = (Metric::from_label(labels), Gauge::default());
        gauge.set_value(value);
        metric.set_gauge(gauge);
        metric
    });
    family(MetricType::GAUGE, name, help, metrics)
}

/// What only goes up, from the start of the process.
pub(super) fn counters(name: &str, help: &str, samples: impl IntoIterator<Item = Sample>) -> MetricFamily {
    let metrics = samples.into_iter().map(|Sample { labels, value }| {
        let (mut metric, mut counter) = (Metric::from_label(labels), Counter::default());
        counter.set_value(value);
        metric.set_counter(counter);
        metric
    });
    family(MetricType::COUNTER, name, help, metrics)
}

/// How long things took, in seconds.
pub(super) fn histograms(
    name: &str,
    help: &str,
    observed: impl IntoIterator<Item = (Vec<LabelPair>, Observed)>,
) -> MetricFamily {
    let metrics = observed.into_iter().map(|(labels, observed)| {
        let mut metric = Metric::from_label(labels);
        metric.set_histogram(histogram(&observed));
        metric
    });
    family(MetricType::HISTOGRAM, name, help, metrics)
}

fn histogram(observed: &Observed) -> Histogram {
    let bucket = |&(bound, count): &(f64, u64)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(count);
        bucket
    };
    let mut histogram = Histogram::default();
    histogram.set_bucket(observed.cumulative.iter().map(bucket).collect());
    histogram.set_sample_count(observed.count);
    histogram.set_sample_sum(observed.sum_seconds);
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
