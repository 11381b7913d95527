//! How many places each identity has of a pool.

use std::sync::Arc;

use crate::backend::Identity;

/// How many places each identity has.
#[derive(Debug, Default)]
pub(super) struct Shares(pub(super) Vec<(Arc<Identity>, usize)>);

impl Shares {
    /// A place is taken for this identity.
    pub(super) fn add(&mut self, identity: &Arc<Identity>) {
        match self.0.iter_mut().find(|(known, _)| Arc::ptr_eq(known, identity)) {
            Some((_, held)) => *held += 1,
            None => self.0.push((Arc::clone(identity), 1)),
        }
    }

    /// A place is given up.
    pub(super) fn remove(&mut self, identity: &Arc<Identity>) {
        let Some(at) = self.0.iter().position(|(known, _)| Arc::ptr_eq(known, identity)) else { return };
        self.0[at].1 -= 1;
        if self.0[at].1 == 0 {
            self.0.swap_remove(at);
        }
    }

    pub(super) fn held(&self, identity: &Arc<Identity>) -> usize {
        self.0.iter().find(|(known, _)| Arc::ptr_eq(known, identity)).map_or(0, |(_, held)| *held)
    }
}
