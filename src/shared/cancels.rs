//! Who may cancel what: the keys given to clients, and the backend each of them stands for at the moment. As the
//! list of all sessions it also is where they are woken from when Bulkhead goes down.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
    time::Duration,
};

use subtle::ConstantTimeEq as _;

use super::card::Card;
use crate::{
    auth::AuthError,
    backend::{
        Settings,
        cancel::{Target, UnderWay},
    },
    clock::{self, Moment},
};

/// Bytes of the secret where the protocol allows more than four (3.2).
const LONG_SECRET_BYTES: usize = 32;

/// Servers' own processes have no higher numbers (Linux: `PID_MAX_LIMIT`). A client that looks whether a notification is
/// its own must not take a server's process for itself.
const PROCESS_IDS_MAX: i32 = 1 << 22;

/// All keys in use.
#[derive(Debug, Default)]
pub struct Cancels {
    by_process: Mutex<HashMap<i32, Entry, foldhash::fast::RandomState>>,
}

#[derive(Debug)]
struct Entry {
    secret: Box<[u8]>,
    running: Arc<Running>,
    /// Wakes the session's task.
    waker: Option<Waker>,
}

/// What a cancel of a session meets.
#[derive(Debug, Default)]
enum Doing {
    /// Nothing to cancel.
    #[default]
    Nothing,
    /// The session waits for a backend.
    Waiting,
    /// The wait was cancelled.
    Cancelled,
    /// The session holds this backend.
    Holds(Arc<Target>),
}

/// What a session does. A cancel is registered under this lock, so it either finds the session's backend or none.
#[derive(Debug)]
struct Running {
    card: Card,
    now: Mutex<Now>,
    /// The session is to end.
    is_killed: AtomicBool,
}

#[derive(Debug)]
struct Now {
    doing: Doing,
    /// Since when it waits, or when it took its backend, or the last one that it had.
    since: Moment,
    /// The session's settings, for its `application_name`.
    settings: Option<Arc<Settings>>,
}

/// A client and what it does at the moment, for operators.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The half of its key that looks like a process id: its number.
    pub id: i32,
    running: Arc<Running>,
    /// The client's activity.
    pub activity: Activity,
    /// How long it has waited, or how long ago it took a backend.
    pub ago: Duration,
    /// The settings that it has now.
    pub settings: Option<Arc<Settings>>,
}

impl Seen {
    /// The card of the client, from its login on.
    pub fn card(&self) -> &Card {
        &self.running.card
    }
}

/// The activity of a client at the moment.
#[derive(Clone, Debug)]
pub enum Activity {
    /// The client holds no backend.
    Idle,
    /// The client waits for one.
    Waiting,
    /// The client holds this one.
    Holds(Arc<Target>),
}

/// The target of a CancelRequest.
#[derive(Debug)]
pub(crate) enum Found {
    /// A backend, to which the cancel must be sent.
    Backend(UnderWay),
    /// A session that waited for a backend, and has been told.
    Waiting,
}

/// A session's key; given back when dropped.
#[derive(Debug)]
pub(crate) struct CancelKey {
    process_id: i32,
    running: Arc<Running>,
    cancels: Arc<Cancels>,
}

impl Cancels {
    /// A new key, and its secret for the client.
    pub(crate) fn issue(
        self: &Arc<Self>,
        long: bool,
        card: Card,
    ) -> Result<(CancelKey, Box<[u8]>), AuthError> {
        let mut random = [0; LONG_SECRET_BYTES + 4];
        let mut keys = self.lock();
        let process_id = loop {
            getrandom::fill(&mut random).map_err(|_| AuthError::Random)?;
            let [a, b, c, d, ..] = random;
            let candidate = i32::from_be_bytes([a & 0x7f, b, c, d]);
            if candidate > PROCESS_IDS_MAX && !keys.contains_key(&candidate) {
                break candidate;
            }
        };
        let secret: Box<[u8]> = random[4..if long { random.len() } else { 8 }].into();
        let running = Arc::new(Running {
            card,
            now: Mutex::new(Now { doing: Doing::Nothing, since: Moment::now(), settings: None }),
            is_killed: AtomicBool::new(false),
        });
        keys.insert(process_id, Entry { secret: secret.clone(), running: Arc::clone(&running), waker: None });
        Ok((CancelKey { process_id, running, cancels: Arc::clone(self) }, secret))
    }

    /// What a CancelRequest hits: the backend that the key's session holds now, or its wait for one.
    pub(crate) fn find(&self, process_id: i32, secret: &[u8]) -> Option<Found> {
        let (running, waker) = {
            let keys = self.lock();
            let entry = keys.get(&process_id)?;
            let matches: bool = entry.secret.ct_eq(secret).into();
            matches.then(|| (Arc::clone(&entry.running), entry.waker.clone()))?
        };
        let mut now = running.lock();
        match &now.doing {
            Doing::Nothing => None,
            Doing::Holds(target) => Some(Found::Backend(target.register())),
            // Waiting => Cancelled
            Doing::Waiting | Doing::Cancelled => {
                now.doing = Doing::Cancelled;
                drop(now);
                waker.inspect(Waker::wake_by_ref);
                Some(Found::Waiting)
            }
        }
    }

    /// Wakes every session, so that it sees that Bulkhead is going down.
    pub fn wake_all(&self) {
        let wakers: Vec<Waker> = self.lock().values().filter_map(|entry| entry.waker.clone()).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Wakes the sessions that hold a backend.
    pub fn wake_holders(&self) {
        let holds = |entry: &&Entry| matches!(entry.running.lock().doing, Doing::Holds(_));
        let wakers: Vec<Waker> =
            self.lock().values().filter(holds).filter_map(|entry| entry.waker.clone()).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Every client, and what it does.
    pub fn seen(&self) -> Vec<Seen> {
        let entries: Vec<_> = {
            let keys = self.lock();
            keys.iter().map(|(id, entry)| (*id, Arc::clone(&entry.running))).collect()
        };
        // The lock that logins take is not held for longer than that.
        let seen = entries.into_iter().map(|(id, running)| {
            let now = running.lock();
            let activity = match &now.doing {
                Doing::Nothing => Activity::Idle,
                Doing::Waiting | Doing::Cancelled => Activity::Waiting,
                Doing::Holds(target) => Activity::Holds(Arc::clone(target)),
            };
            let (ago, settings) = (now.since.elapsed(), now.settings.clone());
            drop(now);
            Seen { id, running, activity, ago, settings }
        });
        seen.collect()
    }

    /// Marks a client's session as one that is to end, and gives what wakes it; `None` if there is no such client.
    pub(super) fn kill(&self, id: i32) -> Option<Waker> {
        let keys = self.lock();
        let entry = keys.get(&id)?;
        entry.running.is_killed.store(true, Ordering::Release);
        Some(entry.waker.clone().unwrap_or_else(|| Waker::noop().clone()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<i32, Entry, foldhash::fast::RandomState>> {
        self.by_process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    fn lock(&self) -> std::sync::MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CancelKey {
    /// The half of the key that looks like a process id.
    pub(crate) const fn process_id(&self) -> i32 {
        self.process_id
    }

    /// The session's task is woken by this from now on.
    pub(crate) fn set_waker(&self, waker: &Waker) {
        if let Some(entry) = self.cancels.lock().get_mut(&self.process_id) {
            entry.waker = Some(waker.clone());
        }
    }

    /// The session holds this backend from now on. A cancel of its wait that came too late is forgotten.
    pub(crate) fn holds(&self, target: &Arc<Target>) {
        let mut now = self.running.lock();
        now.doing = Doing::Holds(Arc::clone(target));
        now.since = clock::last_tick();
    }

    /// The session waits for a backend from now on.
    pub(crate) fn waits(&self) {
        let mut now = self.running.lock();
        now.doing = Doing::Waiting;
        now.since = clock::last_tick();
    }

    /// Whether the wait was cancelled.
    pub(crate) fn is_cancelled(&self) -> bool {
        matches!(self.running.lock().doing, Doing::Cancelled)
    }

    /// The session holds no backend any more: no cancel finds it after this.
    pub(crate) fn holds_none(&self) {
        self.running.lock().doing = Doing::Nothing;
    }

    /// The session has these settings from now on.
    pub(crate) fn has_settings(&self, settings: &Arc<Settings>) {
        self.running.lock().settings = Some(Arc::clone(settings));
    }

    /// Whether an operator has ended the session.
    pub(crate) fn is_killed(&self) -> bool {
        self.running.is_killed.load(Ordering::Acquire)
    }
}

impl Drop for CancelKey {
    fn drop(&mut self) {
        self.cancels.lock().remove(&self.process_id);
    }
}
