//! Who may cancel what: the keys given to clients, and the backend each of them stands for at the moment. As the
//! list of all sessions it also is where they are woken from when Bulkhead goes down.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    task::Waker,
};

use subtle::ConstantTimeEq as _;

use crate::{
    auth::AuthError,
    backend::cancel::{Target, UnderWay},
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
#[derive(Debug, Default)]
struct Running(Mutex<Doing>);

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
    pub(crate) fn issue(self: &Arc<Self>, long: bool) -> Result<(CancelKey, Box<[u8]>), AuthError> {
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
        let running = Arc::new(Running::default());
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
        let mut doing = running.lock();
        match &*doing {
            Doing::Nothing => None,
            Doing::Holds(target) => Some(Found::Backend(target.register())),
            // Waiting => Cancelled
            Doing::Waiting | Doing::Cancelled => {
                *doing = Doing::Cancelled;
                drop(doing);
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
        let holds = |entry: &&Entry| matches!(*entry.running.lock(), Doing::Holds(_));
        let wakers: Vec<Waker> =
            self.lock().values().filter(holds).filter_map(|entry| entry.waker.clone()).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<i32, Entry, foldhash::fast::RandomState>> {
        self.by_process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    fn lock(&self) -> std::sync::MutexGuard<'_, Doing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        *self.running.lock() = Doing::Holds(Arc::clone(target));
    }

    /// The session waits for a backend from now on.
    pub(crate) fn waits(&self) {
        *self.running.lock() = Doing::Waiting;
    }

    /// Whether the wait was cancelled.
    pub(crate) fn is_cancelled(&self) -> bool {
        matches!(*self.running.lock(), Doing::Cancelled)
    }

    /// The session holds no backend any more: no cancel finds it after this.
    pub(crate) fn holds_none(&self) {
        *self.running.lock() = Doing::Nothing;
    }
}

impl Drop for CancelKey {
    fn drop(&mut self) {
        self.cancels.lock().remove(&self.process_id);
    }
}
