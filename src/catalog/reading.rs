//! Where the reading of a database's catalog stands.

use std::sync::Arc;

use tokio::time::Instant;

use super::question::Fingerprint;
use crate::sql::Catalog;

/// Where the reading of a database stands.
#[derive(Debug)]
pub(super) struct Reading {
    /// The snapshot that was read last, which may be gone by while it is known to be right.
    pub(super) last: Arc<Catalog>,
    /// The fingerprint of what `last` was read from.
    pub(super) fingerprint: Option<Fingerprint>,
    pub(super) is_wanted: bool,
    pub(super) is_under_way: bool,
    /// Counts the changes of its definitions that went through here.
    pub(super) changes: u64,
    /// The last one of these after which nothing was known.
    pub(super) changed_at: u64,
    /// Names of what was only added, with the change that did it.
    pub(super) added: Vec<(Box<str>, u64)>,
    /// The time before which no reading begins.
    pub(super) not_before: Instant,
    /// Failures since it last succeeded, and the last one's reason.
    pub(super) failures: u32,
    pub(super) error: String,
    /// It was last read as somebody with all rights, where one with fewer would do.
    pub(super) by_superuser: bool,
    /// Rounds that have gone by since somebody used the database.
    pub(super) unused: u32,
}

impl Reading {
    pub(super) fn new() -> Self {
        Self {
            last: Arc::default(),
            fingerprint: None,
            is_wanted: true,
            is_under_way: false,
            changes: 0,
            changed_at: 0,
            added: Vec::new(),
            not_before: Instant::now(),
            failures: 0,
            error: String::new(),
            by_superuser: false,
            unused: 0,
        }
    }

    pub(super) fn last_with_additions(&self, epoch: u64) -> Arc<Catalog> {
        if self.added.is_empty() {
            return Arc::clone(&self.last);
        }
        Arc::new(self.last.with_additions(epoch, self.added.iter().map(|(name, _)| name.clone())))
    }

    /// Notes that this was added by the last change.
    pub(super) fn add(&mut self, name: &str) {
        let change = self.changes;
        match self.added.iter_mut().find(|(known, _)| **known == *name) {
            Some((_, at)) => *at = change,
            None => self.added.push((name.into(), change)),
        }
    }
}
