//! Clients of every kind that go on until they are stopped, and what has become of each.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::support::eventually;

use super::{
    ledger::{Ledger, Told},
    session::{Refusal, Session},
    units::{KINDS, Kind, Outcome},
};

/// Between two units of one client.
const PAUSE: Duration = Duration::from_millis(8);

/// Between two attempts to log in.
const RETRY: Duration = Duration::from_millis(20);

/// Units that every client has done before a fault.
const WARM: usize = 2;

/// Of a cell of the table: a kind of client, or whoever the fault is about.
pub(super) type Who = Option<Kind>;

/// What clients have seen, by who they are, /// of each thing once in words.
pub(super) type Seen = BTreeMap<Who, BTreeMap<String, String>>;

pub(super) struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
}

/// What a load has come to.
pub(super) struct Report {
    pub(super) run: String,
    pub(super) ledger: Ledger,
    pub(super) seen: Seen,
    /// The longest wait, whose, and for what.
    pub(super) longest: (Duration, String),
    /// From the end of the fault to the first success of the last client to have one.
    pub(super) recovery: (Duration, String),
    pub(super) wrong: Vec<String>,
}

struct Shared {
    port: u16,
    run: String,
    over: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ledger: Ledger,
    seen: Seen,
    longest: (Duration, String),
    wrong: Vec<String>,
    healed: Option<Instant>,
    /// Of each client: units done, and the first success after the fault.
    done: BTreeMap<String, (usize, Option<Instant>)>,
}

/// What a client does after a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    GoOn,
    LogIn,
}

impl Load {
    /// Starts so many clients of each kind at this port, and returns when all are at work. Keys begin with `run`.
    pub(super) async fn start(port: u16, run: String, each: usize) -> Self {
        let shared = Arc::new(Shared { port, run, over: AtomicBool::new(false), state: Mutex::default() });
        let mut load = Self { shared, clients: JoinSet::new() };
        for kind in KINDS {
            for number in 1..=each {
                let name = format!("{}_{number}", kind.name());
                load.shared.state().done.insert(name.clone(), (0, None));
                load.clients.spawn(live(Arc::clone(&load.shared), kind, name));
            }
        }
        eventually("all clients are at work", Duration::from_secs(20), async || {
            load.shared.state().done.values().all(|(count, _)| *count >= WARM).then_some(())
        })
        .await;
        let state = load.shared.state();
        assert!(
            state.seen.is_empty() && state.wrong.is_empty(),
            "before: {:?} {:?}",
            state.seen,
            state.wrong
        );
        drop(state);
        load
    }

    /// The fault is over from now on.
    pub(super) fn healed(&self) {
        self.shared.state().healed.get_or_insert_with(Instant::now);
    }

    /// What the client saw that the fault is about; if it was nothing, that need not be noted.
    pub(super) fn own(&self, seen: &str) {
        self.shared.state().seen.entry(None).or_default().insert(seen.to_owned(), String::new());
    }

    /// A key for rows of the client that the fault is about, whose name is `own`.
    pub(super) fn own_key(&self, told: Told) -> String {
        let mut state = self.shared.state();
        let mut numbers = 1..;
        let mut next = || numbers.next().map(|number: u32| format!("{}-own-{number}", self.shared.run));
        let unused = std::iter::from_fn(&mut next).find(|key| !state.ledger.has(key)).expect("endless");
        state.ledger.enter(&unused, "own", told);
        unused
    }

    /// What the client saw of the units it has done.
    pub(super) fn units_done(&self) -> usize {
        self.shared.state().done.values().map(|(count, _)| count).sum()
    }

    /// Whether any client has been told this.
    pub(super) fn has_seen_any(&self, code: &str) -> bool {
        self.shared.state().seen.values().any(|codes| codes.contains_key(code))
    }

    /// Waits until every client has had success since the fault, stops all, and tells what has become of them.
    pub(super) async fn finish(mut self, within: Duration) -> Report {
        self.healed();
        let deadline = Instant::now() + within;
        while Instant::now() < deadline && self.shared.state().late().next().is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.shared.over.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("a client does not panic");
        }
        let mut state = std::mem::take(&mut *self.shared.state());
        let late: Vec<String> = state.late().cloned().collect();
        if !late.is_empty() {
            state.wrong.push(format!("no success within {within:?} after the fault: {late:?}"));
        }
        let healed = state.healed.expect("it is over");
        let last = state.done.iter().filter_map(|(name, (_, first))| Some(((*first)?, name))).max();
        Report {
            run: self.shared.run.clone(),
            recovery: last.map_or_else(
                || (within, String::new()),
                |(last, name)| (last.saturating_duration_since(healed), name.clone()),
            ),
            ledger: state.ledger,
            seen: state.seen,
            longest: state.longest,
            wrong: state.wrong,
        }
    }
}

impl State {
    /// Clients without success since the fault.
    fn late(&self) -> impl Iterator<Item = &String> {
        self.done.iter().filter(|(_, (_, first))| first.is_none()).map(|(name, _)| name)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }

    fn saw(&self, kind: Kind, refusal: &Refusal) {
        self.state().seen.entry(Some(kind)).or_default().entry(refusal.seen()).or_insert_with(|| {
            let Refusal { asked, text, .. } = refusal;
            format!("`{asked}`: {text}")
        });
    }

    /// Takes over how long a session has waited.
    fn measure(&self, name: &str, session: &Session) {
        let (took, what) = &session.longest;
        self.waited(*took, || format!("{name}: {what}"));
    }

    fn waited(&self, took: Duration, what: impl FnOnce() -> String) {
        let mut state = self.state();
        if took > state.longest.0 {
            state.longest = (took, what());
        }
    }

    /// Takes one unit into the books.
    fn take(&self, kind: Kind, name: &str, key: &str, outcome: Outcome) -> Next {
        let mut state = self.state();
        if kind.is_writer() {
            state.ledger.enter(key, name, outcome.told);
        }
        state.wrong.extend(outcome.wrong.map(|what| format!("{name}: {what}")));
        if outcome.told == Told::Done {
            let is_after = state.healed.is_some();
            let entry = state.done.get_mut(name).expect("it was entered at the start");
            entry.0 += 1;
            if is_after {
                entry.1.get_or_insert_with(Instant::now);
            }
        }
        drop(state);
        let Some(refusal) = outcome.refusal else { return Next::GoOn };
        self.saw(kind, &refusal);
        if refusal.ended { Next::LogIn } else { Next::GoOn }
    }

    async fn login(&self, kind: Kind, name: &str) -> Option<Session> {
        let began = Instant::now();
        let opened = Session::login(self.port, name, &[]).await;
        self.waited(began.elapsed(), || format!("{name}: login"));
        let mut session = opened.map_err(|refusal| self.saw(kind, &refusal)).ok()?;
        let is_set_up = kind.set_up(&mut session, name).await;
        self.measure(name, &session);
        is_set_up.map_err(|refusal| self.saw(kind, &refusal)).ok().map(|()| session)
    }
}

/// One client: it does one unit after the other, and logs in again whenever its session has ended.
async fn live(shared: Arc<Shared>, kind: Kind, name: String) {
    let mut session = None;
    let mut number = 0_u64;
    while !shared.over.load(Ordering::Relaxed) {
        let Some(open) = &mut session else {
            session = shared.login(kind, &name).await;
            if session.is_none() {
                tokio::time::sleep(RETRY).await;
            }
            continue;
        };
        number += 1;
        let key = format!("{}-{name}-{number}", shared.run);
        if kind.is_writer() {
            shared.state().ledger.enter(&key, &name, Told::Unknown);
        }
        let outcome = kind.work(open, &name, &key).await;
        shared.measure(&name, open);
        if shared.take(kind, &name, &key, outcome) == Next::LogIn {
            session = None;
        }
        tokio::time::sleep(PAUSE).await;
    }
    if let Some(session) = session {
        session.leave().await;
    }
}
