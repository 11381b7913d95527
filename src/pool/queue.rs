//! The wait queue, bounded by its pool: first in, first out for each identity, and turns over identities. Whoever floods
//! the queue waits behind itself, and not before others.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use super::refusal::Refusal;
use crate::{
    backend::{Backend, Identity},
    threads::Home,
};

/// The end of a session's wait.
pub(super) type Outcome = Result<Box<Backend>, Refusal>;

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) ticket: u64,
    pub(super) identity: Arc<Identity>,
    pub(super) home: Home,
    /// It waits for a connection that is yet to be made; one that was there before is of no use to it.
    pub(super) fresh: bool,
    pub(super) since: Instant,
    pub(super) to: oneshot::Sender<Outcome>,
}

/// Those who wait for one identity's backends, in the order of their arrival. Never empty.
#[derive(Debug)]
struct Line {
    identity: Arc<Identity>,
    /// Whether they wait for connections that are yet to be made.
    fresh: bool,
    waiters: VecDeque<Waiter>,
}

/// Waiting sessions.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// In the order of their turns.
    lines: VecDeque<Line>,
    len: usize,
    next_ticket: u64,
}

/// A waiter whose backend belongs to another thread may be passed over for so long.
const FAIRNESS: Duration = Duration::from_millis(5);

impl Line {
    fn is_of(&self, identity: &Arc<Identity>) -> bool {
        Arc::ptr_eq(&self.identity, identity)
    }
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn push(&mut self, identity: Arc<Identity>, home: Home) -> (u64, oneshot::Receiver<Outcome>) {
        self.push_as(identity, home, false)
    }

    /// For a connection that is yet to be made.
    pub(super) fn push_for_fresh(
        &mut self,
        identity: Arc<Identity>,
        home: Home,
    ) -> (u64, oneshot::Receiver<Outcome>) {
        self.push_as(identity, home, true)
    }

    fn push_as(
        &mut self,
        identity: Arc<Identity>,
        home: Home,
        fresh: bool,
    ) -> (u64, oneshot::Receiver<Outcome>) {
        let (to, from) = oneshot::channel();
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.len += 1;
        let waiter =
            Waiter { ticket, identity: Arc::clone(&identity), home, fresh, since: Instant::now(), to };
        match self.line_of(&identity, fresh) {
            Some(at) => self.lines[at].waiters.push_back(waiter),
            None => self.lines.push_back(Line { identity, fresh, waiters: VecDeque::from([waiter]) }),
        }
        (ticket, from)
    }

    fn line_of(&self, identity: &Arc<Identity>, fresh: bool) -> Option<usize> {
        self.lines.iter().position(|line| line.fresh == fresh && line.is_of(identity))
    }

    pub(super) fn remove(&mut self, ticket: u64) -> Option<Waiter> {
        let place = |line: &Line| line.waiters.binary_search_by_key(&ticket, |waiter| waiter.ticket).ok();
        let (line, at) =
            self.lines.iter().enumerate().find_map(|(number, line)| Some((number, place(line)?)))?;
        self.take(line, at)
    }

    fn take(&mut self, line: usize, at: usize) -> Option<Waiter> {
        let waiter = self.lines.get_mut(line)?.waiters.remove(at)?;
        self.len -= 1;
        if self.lines[line].waiters.is_empty() {
            self.lines.remove(line);
        }
        Some(waiter)
    }

    /// Takes out the waiter that gets a free backend of this identity and thread: the first of its identity, or, as long as that one has not
    /// waited for long, the first that lives on the backend's thread. Its identity's next turn comes after all others.
    #[inline]
    pub(super) fn take_for(&mut self, identity: &Arc<Identity>, home: Home) -> Option<Waiter> {
        if self.is_empty() { None } else { self.take_turn(identity, home) }
    }

    fn take_turn(&mut self, identity: &Arc<Identity>, home: Home) -> Option<Waiter> {
        let line = self.line_of(identity, false)?;
        let waiters = &self.lines[line].waiters;
        let first = waiters.front()?;
        let at = if first.home == home || first.since.elapsed() > FAIRNESS {
            0
        } else {
            waiters.iter().position(|waiter| waiter.home == home).unwrap_or(0)
        };
        let taken = self.take(line, at);
        if let Some(line) = self.line_of(identity, false).and_then(|line| self.lines.remove(line)) {
            self.lines.push_back(line);
        }
        taken
    }

    /// Takes out the first waiter that a connection just made for this identity is for.
    pub(super) fn take_for_fresh(&mut self, identity: &Arc<Identity>) -> Option<Waiter> {
        self.take(self.line_of(identity, true)?, 0)
    }

    /// The first waiter of each identity, in the order of their turns.
    pub(super) fn heads(&self) -> impl Iterator<Item = &Waiter> {
        self.lines.iter().filter_map(|line| line.waiters.front())
    }

    /// Everybody in turn: the first of each identity, then the second of each, and so on.
    pub(super) fn in_turn(&self) -> impl Iterator<Item = &Waiter> {
        let longest = self.lines.iter().map(|line| line.waiters.len()).max().unwrap_or(0);
        (0..longest).flat_map(|round| self.lines.iter().filter_map(move |line| line.waiters.get(round)))
    }

    /// Takes out who waits in the place of somebody of this identity: the one that came last of the identity that has
    /// most, if that has at least two more than this one would.
    pub(super) fn make_room_for(&mut self, identity: &Arc<Identity>) -> Option<Waiter> {
        let own = self.line_of(identity, false).map_or(0, |line| self.lines[line].waiters.len());
        let (greediest, line) = self.lines.iter().enumerate().max_by_key(|(_, line)| line.waiters.len())?;
        let last = line.waiters.len() - 1;
        if last < own + 1 {
            return None;
        }
        self.take(greediest, last)
    }

    /// Takes out everybody for whom `leaves` holds.
    pub(super) fn take_where(&mut self, leaves: impl Fn(&Waiter) -> bool) -> Vec<Waiter> {
        let mut out = Vec::new();
        for line in &mut self.lines {
            if line.waiters.iter().any(&leaves) {
                let waiters = std::mem::take(&mut line.waiters).into_iter();
                let (gone, stay) = waiters.partition::<VecDeque<_>, _>(&leaves);
                line.waiters = stay;
                out.extend(gone);
            }
        }
        self.lines.retain(|line| !line.waiters.is_empty());
        self.len -= out.len();
        out
    }

    /// Whether anybody waits for this identity.
    pub(super) fn wants(&self, identity: &Arc<Identity>) -> bool {
        self.lines.iter().any(|line| line.is_of(identity))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Credentials;

    const HOME: Home = Home(0);

    fn identities<const N: usize>() -> [Arc<Identity>; N] {
        std::array::from_fn(|n| Arc::new(Identity::new("d", format!("u{n}"), Credentials::of_url())))
    }

    /// A queue in which these have come, one after the other.
    fn queue(comers: &[&Arc<Identity>]) -> Queue {
        let mut queue = Queue::default();
        for identity in comers {
            // Nobody is told anything here.
            drop(queue.push(Arc::clone(identity), HOME));
        }
        queue
    }

    fn tickets<'w>(waiters: impl Iterator<Item = &'w Waiter>) -> Vec<u64> {
        waiters.map(|waiter| waiter.ticket).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn identities_take_turns_and_each_keeps_its_order() {
        let [a, b, c] = identities();
        let mut queue = queue(&[&a, &a, &a, &b, &c, &b]);
        assert_eq!(tickets(queue.heads()), [0, 3, 4]);
        assert_eq!(tickets(queue.in_turn()), [0, 3, 4, 1, 5, 2]);
        assert_eq!(queue.take_for(&a, HOME).map(|waiter| waiter.ticket), Some(0));
        assert_eq!(tickets(queue.in_turn()), [3, 4, 1, 5, 2], "it comes last after its turn");
        assert_eq!(queue.take_for(&c, HOME).map(|waiter| waiter.ticket), Some(4));
        assert!(queue.take_for(&c, HOME).is_none() && !queue.wants(&c) && queue.wants(&b));
        assert_eq!(queue.remove(2).map(|waiter| waiter.ticket), Some(2));
        assert!(queue.remove(2).is_none());
        assert_eq!((queue.len(), tickets(queue.in_turn())), (3, vec![3, 1, 5]));
        let left = queue.take_where(|waiter| waiter.ticket != 1);
        assert_eq!((tickets(left.iter()), queue.len(), tickets(queue.heads())), (vec![3, 5], 1, vec![1]));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_lives_elsewhere_is_passed_over_for_a_moment_only() {
        let [a] = identities();
        for (waits, expected) in [(Duration::ZERO, 1), (FAIRNESS * 2, 0)] {
            let mut queue = queue(&[&a]);
            drop(queue.push(Arc::clone(&a), Home(1)));
            tokio::time::advance(waits).await;
            assert_eq!(queue.take_for(&a, Home(1)).map(|waiter| waiter.ticket), Some(expected));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_newcomer_takes_the_place_of_the_last_of_the_longest_line() {
        let [a, b, c] = identities();
        let mut queue = queue(&[&b, &a, &a, &a, &b]);
        assert!(queue.make_room_for(&a).is_none(), "whoever has most makes no room for itself");
        assert_eq!(queue.make_room_for(&c).map(|waiter| waiter.ticket), Some(3));
        assert!(queue.make_room_for(&b).is_none(), "two are no less than two");
        drop(queue.push(Arc::clone(&c), HOME));
        assert!(queue.make_room_for(&c).is_none(), "it would have as many as the other afterwards");
        assert_eq!(queue.len(), 5);
        let ones = identities::<3>();
        let mut queue = self::queue(&ones.each_ref());
        assert!(queue.make_room_for(&a).is_none(), "nobody has more than one");
    }
}
