//! What every session is to look at though nothing has come for it: that Bulkhead cuts it off, that its server is at
//! another host now, and that its client or its backend acknowledges nothing any more.

use std::io;

use super::{Ended, Session, held::Held};
use crate::shared::attention::Call;

impl Session {
    /// Follows a call, if there was one since the last time: whether there was.
    #[inline]
    pub(crate) fn attend(&mut self) -> Result<bool, Ended> {
        let call = self.view.snapshot.attention.last();
        if self.under_way.attended == call { Ok(false) } else { self.follow_call(call).map(|()| true) }
    }

    #[cold]
    fn follow_call(&mut self, call: Call) -> Result<(), Ended> {
        self.under_way.attended = call;
        if call.is_the_end() || self.who.key.is_killed() {
            return Err(Ended::Shutdown);
        }
        let is_in_vain = self.waits_in_vain();
        if let Some(Held { leased, .. }) = self.held_if_any()
            && (is_in_vain || !leased.is_at_server())
        {
            let broken = if leased.is_at_server() { leased.timed_out() } else { leased.left_behind() };
            return self.on_broken(broken);
        }
        let limit = self.view.snapshot.limits.tcp_user_timeout;
        if limit.is_zero() {
            return Ok(());
        }
        if !self.client.presence.is_gone() && self.client.silence.lasts(&self.client.socket, limit) {
            self.log_disconnected("it acknowledged nothing within limits.tcp_user_timeout, or has vanished");
            self.lose_client(io::ErrorKind::TimedOut.into())?;
        }
        if let Some(Held { leased, .. }) = self.held_if_any() {
            let backend = leased.backend();
            if backend.silence.lasts(&backend.socket, limit) {
                let broken = backend.silent(limit);
                // Those that nobody has tried since lead to the same peer.
                leased.pool().close_idle(|_| true);
                return self.on_broken(broken);
            }
        }
        Ok(())
    }
}
