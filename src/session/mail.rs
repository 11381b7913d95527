//! Passing notifications on from mailboxes to the client, so that no wake-up is lost and nobody goes deaf.
//!
//! Whoever has passed on what could be passed on sleeps for one of two reasons: no mail waits, and the mailboxes know
//! whom to wake; or the outbox is full, and the client's socket does. The mailboxes are told first, before anything is
//! taken out, and always: one that overflows ends its session, however long the client has stopped to read.

use std::task::{Context, Poll, Waker};

use crate::listen::{Fate, Mail, Mailbox};

/// The mail that is left in the mailboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Nothing, or nothing whose time has come: the next mail wakes.
    Nothing,
    /// The outbox is full: mail may wait for room in it.
    Waits,
}

/// A mailbox that cannot be relied on any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) fate: Fate,
    pub(super) limit_bytes: usize,
}

/// A session, as far as its mail is passed on.
pub(super) trait PassesMail {
    type Error;

    /// Has `waker` woken by what comes from now on, and moves mail to the outbox as long as there is room.
    fn take_mail(&mut self, waker: &Waker) -> Result<Rest, Self::Error>;

    /// Sends the outbox. Ready when it is empty; otherwise the task is woken when more can be sent.
    fn poll_outbox(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>>;
}

/// Passes on what the client takes now.
pub(super) fn poll_mail<P: PassesMail>(passes: &mut P, cx: &mut Context<'_>) -> Result<(), P::Error> {
    loop {
        let rest = passes.take_mail(cx.waker())?;
        let is_flushed = passes.poll_outbox(cx)?.is_ready();
        // Waits => (Waits | Nothing): there is room again.
        if rest == Rest::Nothing || !is_flushed {
            return Ok(());
        }
    }
}

/// Has `waker` woken by the next mail, or by what becomes of a mailbox.
pub(super) fn watch<'m>(boxes: impl Iterator<Item = &'m Mailbox>, waker: &Waker) -> Result<(), Failed> {
    for mailbox in boxes {
        mailbox.watch(waker).map_err(|fate| Failed { fate, limit_bytes: mailbox.limit_bytes() })?;
    }
    Ok(())
}

/// Lets `write` add mail to `outbox` as long as that has fewer than `room` bytes.
pub(super) fn empty_into<'m, T>(
    boxes: impl Iterator<Item = (&'m Mailbox, T)>,
    outbox: &mut Vec<u8>,
    room: usize,
    mut write: impl FnMut(&T, Mail, &mut Vec<u8>),
) -> Result<Rest, Failed> {
    for (mailbox, of) in boxes {
        loop {
            if outbox.len() >= room {
                return Ok(Rest::Waits);
            }
            let taken = mailbox.take();
            match taken.map_err(|fate| Failed { fate, limit_bytes: mailbox.limit_bytes() })? {
                Some(mail) => write(&of, mail, outbox),
                None => break,
            }
        }
    }
    Ok(Rest::Nothing)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use super::*;
    use crate::listen::Notification;

    /// Bytes of a notification in the outbox, and bounds that a few of them reach.
    const MAIL: usize = 10;
    const ROOM: usize = 2 * MAIL;
    const SOCKET: usize = 25;

    /// An event. Every one may come at any time, but a poll only to a task that was woken.
    #[derive(Clone, Copy, Debug)]
    enum Act {
        Comes(usize),
        Reads(usize),
        Polls,
    }

    const ACTS: [Act; 5] = [Act::Comes(0), Act::Comes(1), Act::Reads(7), Act::Reads(SOCKET), Act::Polls];

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    /// A session as far as notifications are concerned, with a client that reads when it likes.
    struct Model {
        boxes: Vec<Mailbox>,
        outbox: Vec<u8>,
        /// Bytes in the socket, and who waits for room there.
        in_socket: usize,
        waits_for_socket: Option<Waker>,
        put: usize,
        read: usize,
        ended: Option<Failed>,
        woken: Arc<Woken>,
    }

    impl PassesMail for Model {
        type Error = Failed;

        fn take_mail(&mut self, waker: &Waker) -> Result<Rest, Failed> {
            watch(self.boxes.iter(), waker)?;
            let boxes = self.boxes.iter().map(|mailbox| (mailbox, ()));
            empty_into(boxes, &mut self.outbox, ROOM, |(), _, outbox| outbox.extend([0; MAIL]))
        }

        fn poll_outbox(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
            let sent = self.outbox.len().min(SOCKET - self.in_socket);
            self.in_socket += sent;
            self.outbox.drain(..sent);
            if self.outbox.is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.waits_for_socket = Some(cx.waker().clone());
            Poll::Pending
        }
    }

    impl Model {
        fn new(limit_bytes: usize) -> Self {
            let boxes = (0..2).map(|id| Mailbox::new(id, limit_bytes, Arc::default())).collect();
            let woken = Arc::new(Woken(AtomicBool::new(true)));
            let (outbox, waits_for_socket, ended) = (Vec::new(), None, None);
            Self { boxes, outbox, in_socket: 0, waits_for_socket, put: 0, read: 0, ended, woken }
        }

        fn act(&mut self, act: Act) {
            match act {
                Act::Comes(at) => {
                    let (channel, payload) = ("c".into(), Box::default());
                    let notification = Arc::new(Notification { process_id: 1, channel, payload });
                    self.boxes[at].put(Mail::Heard(1, notification));
                    self.put += 1;
                }
                Act::Reads(bytes) => {
                    let read = bytes.min(self.in_socket);
                    self.in_socket -= read;
                    self.read += read;
                    if read > 0 {
                        self.waits_for_socket.take().into_iter().for_each(Waker::wake);
                    }
                }
                Act::Polls => {
                    if self.ended.is_none() && self.woken.0.swap(false, Ordering::SeqCst) {
                        let waker = Waker::from(Arc::clone(&self.woken));
                        self.ended = poll_mail(self, &mut Context::from_waker(&waker)).err();
                    }
                }
            }
        }

        /// The client reads whatever there is, and the task runs whenever it was woken.
        fn settle(&mut self) {
            for _ in 0..64 {
                self.act(Act::Polls);
                self.act(Act::Reads(SOCKET));
            }
        }
    }

    /// Every order of so many acts.
    fn for_each_order(depth: u32, mut check: impl FnMut(&[Act])) {
        let mut acts = Vec::new();
        for number in 0..ACTS.len().pow(depth) {
            acts.clear();
            let mut rest = number;
            for _ in 0..depth {
                acts.push(ACTS[rest % ACTS.len()]);
                rest /= ACTS.len();
            }
            check(&acts);
        }
    }

    #[test]
    fn in_every_order_of_events_all_mail_arrives() {
        for_each_order(8, |acts| {
            let mut model = Model::new(1 << 20);
            for act in acts {
                model.act(*act);
            }
            model.settle();
            assert_eq!((model.ended, model.read), (None, model.put * MAIL), "{acts:?}");
        });
    }

    #[test]
    fn in_every_order_an_overflow_is_noticed_though_the_client_never_reads() {
        let mut overflows = 0;
        for_each_order(7, |acts| {
            // Room for two in each mailbox.
            let mut model = Model::new(2 * 65);
            for act in acts.iter().filter(|act| !matches!(act, Act::Reads(_))) {
                model.act(*act);
            }
            let is_full = model.boxes.iter().any(|mailbox| mailbox.take() == Err(Fate::Overflowed));
            model.act(Act::Polls);
            assert_eq!(is_full, model.ended.is_some(), "{acts:?}");
            overflows += usize::from(is_full);
        });
        assert!(overflows > 1000, "{overflows}");
    }
}
