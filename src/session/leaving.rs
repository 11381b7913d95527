//! Databases that are dropped, renamed or copied: the server waits a while for all others who are connected to them to go,
//! and Bulkhead's idle backends do.

use std::{pin::pin, sync::Arc, time::Duration};

use super::{Ended, Session};

/// How often those go that have become idle meanwhile. The server waits for 5 s.
const LEAVE_EVERY: Duration = Duration::from_millis(200);

impl Session {
    /// Moves bytes until such a request has been answered, and has idle backends of other databases go until then: those that
    /// are in use as it begins will be idle, too, as after a reading of the catalog.
    pub(super) async fn relay_leaving(&mut self) -> Result<(), Ended> {
        let (snapshot, own) = (Arc::clone(&self.view.snapshot), self.who.identity.database.clone());
        let mut relay = pin!(self.relay());
        loop {
            for member in snapshot.pools.iter().flat_map(|pool| &pool.members) {
                member.close_idle(|identity| identity.database != own);
            }
            tokio::select! {
                // It is not dropped when the other arm is first.
                done = &mut relay => return done,
                () = tokio::time::sleep(LEAVE_EVERY) => {}
            }
        }
    }
}
