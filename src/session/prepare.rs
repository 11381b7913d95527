//! What is done on the backend that a session holds, and with a second one, before a request is sent: few requests need any of it.

use super::{Session, Stop, request::Request};
use crate::route::Demand;

impl Session {
    /// Whether a request needs anything done before it is sent.
    #[inline]
    pub(super) fn needs_preparing(&mut self, request: Request, demand: &Demand) -> bool {
        self.defines(demand) || self.listens(demand) || {
            let held = self.held();
            held.shows_others(request, demand) || held.localizes(request)
        }
    }

    /// Does it. Definitions come first: they may get the session a second backend.
    pub(super) async fn prepare(
        &mut self,
        request: Request,
        demand: &Demand,
        judged_at: u64,
    ) -> Result<(), Stop> {
        if self.defines(demand) {
            self.prepare_definition(request, demand, judged_at).await?;
        }
        if self.listens(demand) {
            self.prepare_listening(request, demand).await?;
        }
        if self.held().shows_others(request, demand) {
            self.hide_others().await?;
        }
        if self.held().localizes(request) {
            self.held().check_types(request).await?;
        }
        Ok(())
    }
}
