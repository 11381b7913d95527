//! Portals, which SQL calls cursors, and advisory locks that a session has on one of two servers only.

/// Names of portals that are remembered of a backend: the last ones that were made there.
const PORTALS_MAX: usize = 64;

/// Portals and locks of the session on one backend. Boxed: few sessions have any, and each lease is moved about.
#[derive(Debug, Default)]
pub(super) struct There(Option<Box<Things>>);

#[derive(Debug, Default)]
struct Things {
    /// Portals that were made on it. Some may be closed.
    portals: Vec<Box<[u8]>>,
    /// Advisory locks of the session were taken on it.
    locks: bool,
}

impl There {
    /// Whether advisory locks of the session were taken on it.
    pub(super) fn has_locks(&self) -> bool {
        self.0.as_ref().is_some_and(|things| things.locks)
    }

    /// Notes that advisory locks are taken on it.
    pub(super) fn note_locks(&mut self) {
        self.0.get_or_insert_default().locks = true;
    }

    /// Whether a portal of this name was made on it.
    pub(super) fn has(&self, portal: &[u8]) -> bool {
        self.0.as_ref().is_some_and(|things| things.portals.iter().any(|name| **name == *portal))
    }

    /// Forgets a portal, which was made anew on the other one.
    pub(super) fn forget(&mut self, portal: &[u8]) {
        if let Some(things) = &mut self.0 {
            things.portals.retain(|name| **name != *portal);
        }
    }

    /// Notes a portal that is made on it.
    pub(super) fn note(&mut self, portal: &[u8]) {
        self.forget(portal);
        let portals = &mut self.0.get_or_insert_default().portals;
        if portals.len() == PORTALS_MAX {
            portals.remove(0);
        }
        portals.push(portal.into());
    }
}
