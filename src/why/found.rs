//! A finding in the making, and its place among the others.

use super::{Cause, Finding, Severity, facts::Pool, words};

/// A finding and its place among those of the same severity.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) finding: Finding,
    /// The cause whose place it has, if that is not its own.
    pub(super) place: Option<Cause>,
    /// The greater of two of the same kind comes first.
    pub(super) weight: usize,
}

impl Found {
    pub(super) fn new(cause: Cause, severity: Severity, title: String) -> Self {
        let finding = Finding { cause, severity, title, evidence: Vec::new(), next: String::new() };
        Self { finding, place: None, weight: 0 }
    }

    pub(super) fn weighing(mut self, weight: usize) -> Self {
        self.weight = weight;
        self
    }

    pub(super) fn evidence(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.finding.evidence.extend(lines);
        self
    }

    pub(super) fn next(mut self, next: impl Into<String>) -> Self {
        self.finding.next = next.into();
        self
    }

    /// The order in which findings are told.
    pub(super) fn order(&self) -> (Severity, Cause, usize) {
        let cause = self.finding.cause;
        (self.finding.severity, self.place.unwrap_or(cause), usize::MAX - self.weight)
    }
}

/// A pool's name; with its server's, if that is another one.
pub(super) fn pool_name(pool: &Pool) -> String {
    if pool.name == pool.server {
        words::name(&pool.name)
    } else {
        format!("{} on {}", words::name(&pool.name), words::name(&pool.server))
    }
}
