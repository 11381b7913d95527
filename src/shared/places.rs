//! Who holds how many of the places that `limits.max_clients` gives.
//!
//! The last places are for identities that hold few: one whose clients flood the door shuts out nobody else. A deployment
//! of one identity has all of them for itself.
//!
//! Whom a client says it is counts here before it is proven: a login under way holds a place as well. But nobody takes
//! another's share by saying a name: where an identity has no more places, its oldest login that is not proven yet gives
//! way to the next one. Who knows the password needs a moment for it, who does not must go on coming. What is left to those
//! who prove nothing is that all places together are taken, for `limits.login_timeout` each.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use tokio::sync::Notify;

use super::counters::Metrics;

/// At most so many places are kept for those who hold few.
const RESERVE_MAX: usize = 50;

/// A user and a database.
type Name = (String, String);

/// The places of all clients.
#[derive(Debug, Default)]
pub struct Places(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    held: HashMap<Arc<Name>, Held>,
    /// Logins that have been told to give way, and hold their places still.
    leaving: usize,
    /// The first that was let in.
    first: Option<Arc<Name>>,
    /// Whether another one was.
    are_several: bool,
}

/// The places of one identity.
#[derive(Debug, Default)]
struct Held {
    places: usize,
    /// Logins under way among them, which may be anybody's, the oldest first. Each is told to give way by it.
    unproven: VecDeque<Arc<Notify>>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// All are taken.
    Full,
    /// Its identity holds so many, and the last ones, so many, are kept for others.
    Kept {
        /// Places that it holds.
        held: usize,
        /// Places that are kept.
        reserve: usize,
    },
}

/// Counts a client as long as it lives.
#[derive(Debug)]
pub(crate) struct CountedClient {
    metrics: Arc<Metrics>,
    places: Arc<Places>,
    /// The same as that of all others of its identity.
    name: Arc<Name>,
    /// Until it is let in.
    unproven: Option<Arc<Notify>>,
}

/// How many places are kept for those who hold few.
fn reserve(limit: usize) -> usize {
    (limit / 10).clamp(1, RESERVE_MAX)
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether a client of this name may have one of the places of which `taken` are gone.
    fn admits(&self, name: &Name, taken: usize, limit: usize, others_known: bool) -> Result<(), NoPlace> {
        if taken >= limit {
            return Err(NoPlace::Full);
        }
        let reserve = reserve(limit);
        let is_new = self.first.as_ref().is_some_and(|first| **first != *name);
        if limit - taken > reserve || !(others_known || self.are_several || is_new) {
            return Ok(());
        }
        let held = self.held.get(name).map_or(0, |held| held.places);
        let share = limit / self.held.len().max(2);
        if held > 0 && held >= share { Err(NoPlace::Kept { held, reserve }) } else { Ok(()) }
    }

    /// Has the oldest login of this name that is not proven give way to another. Its place is free a moment later: of the
    /// places that are kept for others only half are lent for that long.
    fn make_room(&mut self, name: &Name, limit: usize) -> bool {
        if self.leaving >= reserve(limit).div_ceil(2) {
            return false;
        }
        let oldest = self.held.get_mut(name).and_then(|held| held.unproven.pop_front());
        oldest.inspect(|login| login.notify_one()).inspect(|_| self.leaving += 1).is_some()
    }

    /// A login under way has come to its end. False if it was to give way.
    fn end_login(&mut self, name: &Name, login: &Arc<Notify>) -> bool {
        let Some(held) = self.held.get_mut(name) else { return false };
        let under_way = held.unproven.len();
        held.unproven.retain(|other| !Arc::ptr_eq(other, login));
        let was_known = held.unproven.len() < under_way;
        self.leaving -= usize::from(!was_known);
        was_known
    }
}

impl CountedClient {
    /// Takes one of `limit` places for a client that says it is `user`. `others_known` says that there are other users.
    pub(crate) fn new(
        metrics: &Arc<Metrics>,
        places: &Arc<Places>,
        (user, database): (&str, &str),
        limit: usize,
        others_known: bool,
    ) -> Result<Self, NoPlace> {
        let name = (user.to_owned(), database.to_owned());
        let mut state = places.lock();
        let taken = metrics.clients.load(Ordering::Relaxed) as usize;
        match state.admits(&name, taken, limit, others_known) {
            Err(NoPlace::Kept { .. }) if state.make_room(&name, limit) => {}
            admitted => admitted?,
        }
        let name =
            state.held.get_key_value(&name).map_or_else(|| Arc::new(name), |(known, _)| Arc::clone(known));
        let unproven = Arc::new(Notify::new());
        let held = state.held.entry(Arc::clone(&name)).or_default();
        held.places += 1;
        held.unproven.push_back(Arc::clone(&unproven));
        metrics.clients.fetch_add(1, Ordering::Relaxed);
        let (metrics, places) = (Arc::clone(metrics), Arc::clone(places));
        Ok(Self { metrics, places, name, unproven: Some(unproven) })
    }

    /// Waits until it must give way to another of its name, which ends when it is let in.
    ///
    /// Cancel safe.
    pub(crate) async fn gives_way(&self) {
        match &self.unproven {
            Some(unproven) => unproven.notified().await,
            None => std::future::pending().await,
        }
    }

    /// It is whom it said it is. False if it must give way all the same.
    pub(crate) fn is_let_in(&mut self) -> bool {
        let mut state = self.places.lock();
        if self.unproven.take().is_some_and(|login| !state.end_login(&self.name, &login)) {
            return false;
        }
        match &state.first {
            None => state.first = Some(Arc::clone(&self.name)),
            Some(first) => state.are_several |= *first != self.name,
        }
        true
    }
}

impl Drop for CountedClient {
    fn drop(&mut self) {
        let mut state = self.places.lock();
        self.metrics.clients.fetch_sub(1, Ordering::Relaxed);
        if let Some(login) = self.unproven.take() {
            state.end_login(&self.name, &login);
        }
        if let Some(held) = state.held.get_mut(&self.name) {
            held.places -= 1;
            if held.places == 0 {
                state.held.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A door with so many places.
    struct Door {
        metrics: Arc<Metrics>,
        places: Arc<Places>,
        limit: usize,
        others_known: bool,
    }

    impl Door {
        fn of(limit: usize, others_known: bool) -> Self {
            Self { metrics: Arc::default(), places: Arc::default(), limit, others_known }
        }

        fn enter(&self, user: &str) -> Result<CountedClient, NoPlace> {
            let mut entered = self.knock(user)?;
            assert!(entered.is_let_in());
            Ok(entered)
        }

        /// A login under way.
        fn knock(&self, user: &str) -> Result<CountedClient, NoPlace> {
            CountedClient::new(&self.metrics, &self.places, (user, "d"), self.limit, self.others_known)
        }

        /// As many as get in, and why the next one does not.
        fn flood(&self, user: &str) -> (Vec<CountedClient>, NoPlace) {
            let mut inside = Vec::new();
            loop {
                match self.enter(user) {
                    Ok(client) => inside.push(client),
                    Err(why) => return (inside, why),
                }
            }
        }
    }

    #[test]
    fn a_single_identity_has_all_places() {
        let door = Door::of(100, false);
        let (inside, why) = door.flood("one");
        assert_eq!((inside.len(), why), (100, NoPlace::Full));
        drop(inside);
        assert_eq!(door.metrics.clients.load(Ordering::Relaxed), 0);
        assert!(door.places.lock().held.is_empty());
    }

    #[test]
    fn the_last_places_are_for_those_who_hold_few() {
        for (limit, reserve) in [(2, 1), (10, 1), (100, 10), (10_000, 50)] {
            let door = Door::of(limit, true);
            let (greedy, why) = door.flood("greedy");
            assert_eq!(
                (greedy.len(), why),
                (limit - reserve, NoPlace::Kept { held: limit - reserve, reserve })
            );
            let (others, why) = door.flood("other");
            assert_eq!((others.len(), why), (reserve, NoPlace::Full));
        }
    }

    #[test]
    fn places_are_kept_once_a_second_identity_was_let_in() {
        let door = Door::of(20, false);
        drop(door.enter("one"));
        drop(door.enter("two"));
        let (inside, _) = door.flood("one");
        assert_eq!(inside.len(), 18);
        assert!(door.enter("two").is_ok() && door.enter("three").is_ok());
    }

    #[test]
    fn shares_are_smaller_the_more_there_are() {
        let door = Door::of(20, true);
        let _few: Vec<_> = (0..4).map(|n| door.enter(&format!("few {n}"))).collect();
        let _two: Vec<_> = (0..14).map(|_| door.enter("many")).collect();
        // Five share twenty places, of which two are left.
        let (more, why) = door.flood("few 0");
        assert_eq!((more.len(), why), (2, NoPlace::Full));
        drop(more);
        assert_eq!(door.enter("many").err(), Some(NoPlace::Kept { held: 14, reserve: 2 }));
    }

    #[tokio::test]
    async fn who_has_proven_nothing_gives_way_to_others_of_its_name() {
        let door = Door::of(20, true);
        let proven: Vec<_> = (0..3).map(|_| door.enter("victim")).collect();
        let mut knocking: Vec<_> = (0..15).map(|_| door.knock("victim").expect("a place")).collect();
        // Two are left for others. The next one of this name is let in all the same, in place of the oldest.
        let mut next = door.knock("victim").expect("in place of another");
        knocking[0].gives_way().await;
        assert!(door.knock("victim").is_err(), "one at a time");
        assert!(!knocking.remove(0).is_let_in() && next.is_let_in());
        assert_eq!(
            (proven.len(), door.places.lock().held.values().map(|held| held.places).sum::<usize>()),
            (3, 18)
        );
        // Who has proven itself stays.
        knocking.clear();
        let (inside, why) = door.flood("victim");
        assert_eq!((inside.len(), why), (14, NoPlace::Kept { held: 18, reserve: 2 }));
        drop((inside, proven, next));
        assert!(door.places.lock().held.is_empty());
    }

    #[test]
    fn the_only_place_is_for_whoever_comes() {
        let door = Door::of(1, true);
        assert_eq!(door.flood("one").0.len(), 1);
        assert_eq!(door.flood("two").0.len(), 1);
    }
}
