//! Building blocks of `/metrics`: samples, and families of them.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::metrics::list::{Described, Kind};
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

impl Described {
    /// The family of a gauge or counter.
    pub(super) fn of(&self, samples: impl IntoIterator<Item = Sample>) -> MetricFamily {
        let metrics = samples.into_iter().map(|Sample { labels, value }| {
            let mut metric = Metric::from_label(labels);
            if self.kind == Kind::Counter {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            } else {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
            metric
        });
        self.family(metrics)
    }

    /// The family of a gauge or counter without labels.
    pub(super) fn is(&self, value: u64) -> MetricFamily {
        self.of([sample(&[], value)])
    }

    /// The family of a histogram: how long things took.
    pub(super) fn took(
        &self,
        observed: impl IntoIterator<Item = (Vec<LabelPair>, Observed)>,
    ) -> MetricFamily {
        let metrics = observed.into_iter().map(|(labels, observed)| {
            let mut metric = Metric::from_label(labels);
            metric.set_histogram(histogram(&observed));
            metric
        });
        self.family(metrics)
    }

    fn family(&self, metrics: impl IntoIterator<Item = Metric>) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.meaning.to_owned());
        family.set_field_type(match self.kind {
            Kind::Gauge => MetricType::GAUGE,
            Kind::Counter => MetricType::COUNTER,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        let metrics: Vec<Metric> = metrics.into_iter().collect();
        debug_assert!(metrics.iter().all(|metric| self.labels_are(metric)), "{}: other labels", self.name);
        family.set_metric(metrics);
        family
    }

    fn labels_are(&self, metric: &Metric) -> bool {
        let listed = self.labels.iter().map(|label| label.name);
        metric.get_label().iter().map(LabelPair::name).eq(listed)
    }
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
