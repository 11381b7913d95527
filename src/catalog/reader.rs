//! When snapshots are read, and how.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    catalogs::Catalogs,
    database::{DatabaseCatalog, RETRY_MAX, Read},
    question::{self, Found},
};
use crate::{
    pool::{ServerPool, Wants},
    threads::Home,
};

/// Databases that are read at the same time: each takes a connection of the primary's pool.
pub(super) const AT_ONCE: usize = 4;

/// A server that takes longer to answer will not; its place is needed.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// A database that nobody has used for so many rounds is forgotten.
const UNUSED_ROUNDS: u32 = 6;

/// A round is not begun before so many times as long as the last one took have gone by.
const ROUND_SHARE: u32 = 10;

/// Where catalogs are read.
#[derive(Clone, Debug)]
pub struct Source {
    /// The pool of the primary.
    pub primary: Arc<ServerPool>,
    /// The pool of the job database, if that is another server: then its types are read too.
    pub jobs: Option<Arc<ServerPool>>,
    /// How often all of them are looked at again.
    pub refresh: Duration,
}

impl Catalogs {
    /// Reads snapshots from the primary: new ones and stale ones at once, all of them every `refresh`.
    pub async fn keep(self: Arc<Self>, mut source: watch::Receiver<Source>, stop: CancellationToken) {
        let mut next_round = Instant::now() + source.borrow().refresh;
        let mut round_began: Option<Instant> = None;
        // Dropped at the end, with the connections that they are made on.
        let mut readings = JoinSet::new();
        loop {
            let Source { primary, jobs, refresh } = source.borrow_and_update().clone();
            let mut next = self.begin_readings(&primary, &mut readings);
            if let Some(jobs) = &jobs {
                next = next.min(self.begin_type_readings((&primary, jobs), &mut readings));
            }
            if let Some(began) = round_began.take_if(|_| readings.is_empty()) {
                let pause = (began.elapsed() * ROUND_SHARE).min(refresh * ROUND_SHARE);
                next_round = next_round.max(Instant::now() + pause);
            }
            tokio::select! {
                // Cancel safe: a notification that is not consumed stays with the Notify.
                () = self.wanted.notified() => {}
                // Cancel safe: a change that was not seen is seen next time.
                Ok(()) = source.changed() => {
                    let refresh = source.borrow().refresh;
                    next_round = next_round.min(Instant::now() + refresh);
                    if source.borrow().jobs.as_ref().map(Arc::as_ptr) != jobs.as_ref().map(Arc::as_ptr) {
                        self.forget_types();
                    }
                }
                // Cancel safe: a reading that has ended stays in the set.
                Some(_) = readings.join_next() => {}
                () = sleep_until(next.min(next_round)) => {
                    if Instant::now() >= next_round {
                        let now = Instant::now();
                        (next_round, round_began) = (now + refresh, Some(now));
                        self.begin_round(&primary);
                    }
                }
                () = stop.cancelled() => return,
            }
        }
    }

    /// Each database is to be looked at; those that nobody has used for a while are forgotten.
    fn begin_round(&self, primary: &ServerPool) {
        let mut forgotten = Vec::new();
        self.lock().retain(|_, catalog| {
            let mut reading = catalog.lock();
            if Arc::strong_count(catalog) > 1 {
                reading.unused = 0;
                reading.is_wanted = true;
                catalog.types.want();
                return true;
            }
            reading.unused += 1;
            reading.is_wanted = false;
            let stays = reading.unused < UNUSED_ROUNDS;
            if !stays {
                forgotten.push(catalog.database.clone());
            }
            stays
        });
        if !forgotten.is_empty() {
            // Nobody can drop the database, or make another one after it, while somebody is connected to it.
            primary.close_idle(|identity| forgotten.contains(&identity.database));
        }
    }

    /// Begins the readings that are due. Returns when the next one is.
    fn begin_readings(self: &Arc<Self>, primary: &Arc<ServerPool>, readings: &mut JoinSet<()>) -> Instant {
        let now = Instant::now();
        let mut next = now + RETRY_MAX;
        for catalog in self.all() {
            let mut reading = catalog.lock();
            if !reading.is_wanted || reading.is_under_way {
                continue;
            }
            if reading.not_before > now {
                next = next.min(reading.not_before);
            } else if readings.len() < AT_ONCE {
                reading.is_wanted = false;
                reading.is_under_way = true;
                drop(reading);
                let (catalogs, primary) = (Arc::clone(self), Arc::clone(primary));
                readings.spawn(async move { catalogs.renew(&primary, &catalog).await });
            }
        }
        next
    }

    /// Reads a database again, and puts in force what was read.
    async fn renew(&self, primary: &Arc<ServerPool>, catalog: &Arc<DatabaseCatalog>) {
        let began = Instant::now();
        let changes = catalog.lock().changes;
        let read = self.read(primary, catalog).await;
        let took = began.elapsed();
        catalog.note_read(read, changes, took, self.next_epoch());
        self.tell_libraries(catalog);
        catalog.attempted.notify_waiters();
    }

    async fn read(&self, primary: &Arc<ServerPool>, catalog: &DatabaseCatalog) -> Result<Read, String> {
        let identity = catalog.identity.load_full();
        let wants = Wants { identity: &identity, last: None, settings: 0, home: Home(0) };
        let mut lease = primary.lease(&wants).await.map_err(|refusal| refusal.to_string())?;
        let (last, known) = {
            let mut reading = catalog.lock();
            reading.by_superuser = question::is_superuser(&lease);
            (Arc::clone(&reading.last), reading.fingerprint.clone())
        };
        let found = timeout(READ_TIMEOUT, question::ask(&mut lease, self.seed, known.as_ref()))
            .await
            .map_err(|_| format!("no answer within {READ_TIMEOUT:?}"))??;
        // After an error it is dropped, and its connection closed.
        if let Some(proof) = lease.protocol.quiescent() {
            lease.release(proof);
        }
        match found {
            Found::Same(fingerprint) => Ok(Read { catalog: last, fingerprint, contradicts: false }),
            Found::Rows(fingerprint, answer) => {
                let epoch = self.next_epoch();
                let make = move || {
                    let read = question::catalog(epoch, answer);
                    if last.says_the_same(&read) {
                        // Sessions keep their cached verdicts as long as nothing has changed.
                        return Read { catalog: last, fingerprint, contradicts: false };
                    }
                    let contradicts = !last.differs_in_plain_relations(&read);
                    Read { catalog: Arc::new(read), fingerprint, contradicts }
                };
                tokio::task::spawn_blocking(make).await.map_err(|error| error.to_string())
            }
        }
    }
}
