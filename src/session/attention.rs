//! What every session is to look at though nothing has come for it: that Bulkhead cuts it off, that its server is at
//! another host now, and that its client or its backend acknowledges nothing any more.

use std::{
    io,
    sync::atomic::{AtomicU32, Ordering},
};

use super::{Ended, Session};

/// Calls for attention, counted. An odd one is the last: everybody is cut off.
#[derive(Debug, Default)]
pub struct Attention(AtomicU32);

/// One call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call(u32);

impl Attention {
    /// Calls for a look at what may have changed.
    pub(super) fn call(&self) {
        self.0.fetch_add(2, Ordering::AcqRel);
    }

    /// Calls for the end.
    pub(super) fn cut_off(&self) {
        self.0.fetch_or(1, Ordering::AcqRel);
    }

    pub(crate) fn last(&self) -> Call {
        Call(self.0.load(Ordering::Acquire))
    }
}

impl Call {
    const fn is_the_end(self) -> bool {
        self.0 % 2 == 1
    }
}

impl Session {
    /// Follows a call, if there was one since the last time: whether there was.
    #[inline]
    pub(crate) fn attend(&mut self) -> Result<bool, Ended> {
        let call = self.view.shared.attention.last();
        if self.under_way.attended == call { Ok(false) } else { self.follow_call(call).map(|()| true) }
    }

    #[cold]
    fn follow_call(&mut self, call: Call) -> Result<(), Ended> {
        self.under_way.attended = call;
        if call.is_the_end() {
            return Err(Ended::Shutdown);
        }
        if let Some(lease) = self.hold.leased.as_ref().filter(|lease| !lease.is_at_server()) {
            let broken = lease.left_behind();
            return self.on_broken(broken);
        }
        let limit = self.view.shared.limits.tcp_user_timeout;
        if limit.is_zero() {
            return Ok(());
        }
        if !self.client.presence.is_gone() && self.client.silence.lasts(&self.client.socket, limit) {
            self.log_disconnected("it acknowledged nothing within limits.tcp_user_timeout, or has vanished");
            self.lose_client(io::ErrorKind::TimedOut.into())?;
        }
        if let Some(lease) = &mut self.hold.leased {
            let backend = lease.backend();
            if backend.silence.lasts(&backend.socket, limit) {
                let broken = backend.silent(limit);
                // Those that nobody has tried since lead to the same peer.
                lease.pool().close_idle(|_| true);
                return self.on_broken(broken);
            }
        }
        Ok(())
    }
}
