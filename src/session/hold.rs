//! What a session holds: its transaction, and its backend.

use super::{left::Left, transaction::Begun};
use crate::{
    pool::{Lease, PinPlace},
    route::PoolId,
    shared::counters::CountedPin,
};

/// The session's transaction and backend.
#[derive(Debug, Default)]
pub(super) struct Hold {
    /// A transaction that exists here only.
    pub(super) begun: Begun,
    /// A place among a pool's pins, for the lease that is taken next.
    pub(super) reserved: Option<PinPlace>,
    /// The backend, while the session holds one.
    pub(super) lease: Option<Lease>,
    pub(super) lease_pool: PoolId,
    /// The lease is the session's own until it disconnects.
    pub(super) is_kept: bool,
    /// Why the lease is kept between transactions.
    pub(super) pin: Option<Box<CountedPin>>,
    /// What the statements since the last checkout have, or may have, left on the backend.
    pub(super) left: Left,
}
