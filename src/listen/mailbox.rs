//! What has been heard for one session and waits until it can be told: bounded, and never waited for.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
};

/// The cost of a notification in a mailbox beside its texts.
const ENTRY_BYTES: usize = 64;

/// Counters of listening, for the metrics.
#[derive(Debug, Default)]
pub struct ListenStats {
    /// Sessions that listen now, counted once for each server they listen on.
    pub listeners: AtomicU64,
    /// Notifications put into mailboxes.
    pub delivered: AtomicU64,
    /// Notifications not put into a mailbox because it was full.
    pub dropped: AtomicU64,
    /// Mailboxes that were full.
    pub overflows: AtomicU64,
    /// Connections that were lost while somebody listened.
    pub losses: AtomicU64,
    /// Connections that took the place of a lost one.
    pub reconnects: AtomicU64,
}

/// A notification as the server sent it.
#[derive(Debug, PartialEq)]
pub struct Notification {
    /// The server process that sent it.
    pub process_id: i32,
    /// The channel.
    pub channel: Box<str>,
    /// The payload.
    pub payload: Box<[u8]>,
}

/// Something for the session, in the order in which the server told it.
#[derive(Clone, Debug, PartialEq)]
pub enum Mail {
    /// A notification, and its position among all that the connection has heard.
    Heard(u64, Arc<Notification>),
    /// The connection was lost and replaced: notifications may have been missed.
    Gap,
}

/// Whether a mailbox can still be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// All is in it.
    Sound,
    /// The mailbox was full when something more came.
    Overflowed,
    /// The connection was lost: notifications may have been missed.
    Lost,
}

/// One session's notifications from one server.
#[derive(Debug)]
pub struct Mailbox {
    pub(super) id: u64,
    limit_bytes: usize,
    stats: Arc<ListenStats>,
    inside: Mutex<Inside>,
}

#[derive(Debug)]
struct Inside {
    mail: VecDeque<Mail>,
    bytes: usize,
    fate: Fate,
    waker: Option<Waker>,
}

impl Mailbox {
    pub(crate) fn new(id: u64, limit_bytes: usize, stats: Arc<ListenStats>) -> Self {
        stats.listeners.fetch_add(1, Ordering::Relaxed);
        let inside = Inside { mail: VecDeque::new(), bytes: 0, fate: Fate::Sound, waker: None };
        Self { id, limit_bytes, stats, inside: Mutex::new(inside) }
    }

    /// The bound, in bytes.
    pub const fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    /// From now on `waker` is woken when mail comes into the empty mailbox, and when it can no longer be relied on.
    pub fn watch(&self, waker: &Waker) -> Result<(), Fate> {
        let mut inside = self.lock();
        if inside.fate != Fate::Sound {
            return Err(inside.fate);
        }
        if !inside.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            inside.waker = Some(waker.clone());
        }
        Ok(())
    }

    /// The next mail, or why there will be none.
    pub fn take(&self) -> Result<Option<Mail>, Fate> {
        let mut inside = self.lock();
        if inside.fate != Fate::Sound {
            return Err(inside.fate);
        }
        let mail = inside.mail.pop_front();
        match &mail {
            Some(mail) => inside.bytes -= mail.bytes(),
            // An idle session owns no buffer.
            None => inside.mail = VecDeque::new(),
        }
        Ok(mail)
    }

    pub(crate) fn put(&self, mail: Mail) {
        let mut inside = self.lock();
        if inside.fate != Fate::Sound {
            self.stats.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if inside.bytes + mail.bytes() > self.limit_bytes {
            self.stats.dropped.fetch_add(inside.mail.len() as u64 + 1, Ordering::Relaxed);
            self.stats.overflows.fetch_add(1, Ordering::Relaxed);
            inside.end(Fate::Overflowed);
        } else {
            self.stats.delivered.fetch_add(1, Ordering::Relaxed);
            let was_empty = inside.mail.is_empty();
            inside.bytes += mail.bytes();
            inside.mail.push_back(mail);
            if !was_empty {
                // Who has left some in it waits for something else first: room for it, or its time.
                return;
            }
        }
        Self::wake(inside);
    }

    pub(super) fn lose(&self) {
        let mut inside = self.lock();
        if inside.fate == Fate::Sound {
            inside.end(Fate::Lost);
        }
        Self::wake(inside);
    }

    fn wake(mut inside: MutexGuard<'_, Inside>) {
        let waker = inside.waker.take();
        drop(inside);
        waker.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.stats.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Inside {
    // Sound => (Overflowed | Lost)
    fn end(&mut self, fate: Fate) {
        self.fate = fate;
        self.mail = VecDeque::new();
        self.bytes = 0;
    }
}

impl Mail {
    fn bytes(&self) -> usize {
        match self {
            Self::Heard(_, heard) => ENTRY_BYTES + heard.channel.len() + heard.payload.len(),
            Self::Gap => ENTRY_BYTES,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(position: u64, payload: usize) -> Mail {
        let payload = vec![b'x'; payload].into();
        Mail::Heard(position, Arc::new(Notification { process_id: 1, channel: "c".into(), payload }))
    }

    #[test]
    fn a_full_mailbox_holds_nothing_and_says_so() {
        let stats = Arc::new(ListenStats::default());
        let mailbox = Mailbox::new(0, 3 * ENTRY_BYTES, Arc::clone(&stats));
        mailbox.put(heard(1, 10));
        assert!(matches!(mailbox.take(), Ok(Some(Mail::Heard(1, _)))));
        mailbox.put(heard(2, 10));
        mailbox.put(heard(3, 10));
        assert_eq!(stats.overflows.load(Ordering::Relaxed), 0, "what was taken makes room");
        mailbox.put(heard(4, 100));
        mailbox.put(heard(5, 0));
        assert!(matches!(mailbox.take(), Err(Fate::Overflowed)));
        assert_eq!(mailbox.lock().mail.capacity(), 0);
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        assert_eq!((read(&stats.delivered), read(&stats.dropped), read(&stats.overflows)), (3, 4, 1));
        drop(mailbox);
        assert_eq!(read(&stats.listeners), 0);
    }
}
