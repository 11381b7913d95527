//! Reads that go to no replica.

use super::verdict::Effects;

/// Effects of what goes to the primary though it only reads: it ties its session to the backend that it runs on, and the
/// session may want to write later; or it is to meet others, who are there.
pub const NOT_ON_REPLICAS: Effects = Effects::TEMP
    .with(Effects::LOCKS)
    .with(Effects::ADVISORY)
    .with(Effects::LISTENS)
    .with(Effects::PREPARES)
    .with(Effects::HOLDS_CURSOR)
    .with(Effects::LOADS)
    .with(Effects::SEEDS)
    .with(Effects::OPAQUE_SETTINGS);
