//! Portals, which SQL calls cursors, and advisory locks that a session has on one of two servers only.

/// Names of portals that are remembered of a backend: the last ones that were made there.
const PORTALS_MAX: usize = 64;

/// Portals and locks of the session on one backend.
#[derive(Debug, Default)]
pub(super) struct There {
    /// Portals that were made on it. Some may be closed.
    portals: Vec<Box<[u8]>>,
    /// Advisory locks of the session were taken on it.
    pub(super) locks: bool,
}

impl There {
    /// Whether a portal of this name was made on it.
    pub(super) fn has(&self, portal: &[u8]) -> bool {
        self.portals.iter().any(|name| **name == *portal)
    }

    /// Forgets a portal, which was made anew on the other one.
    pub(super) fn forget(&mut self, portal: &[u8]) {
        self.portals.retain(|name| **name != *portal);
    }

    /// Notes a portal that is made on it.
    pub(super) fn note(&mut self, portal: &[u8]) {
        self.forget(portal);
        if self.portals.len() == PORTALS_MAX {
            self.portals.remove(0);
        }
        self.portals.push(portal.into());
    }
}
