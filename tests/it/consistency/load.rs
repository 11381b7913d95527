//! Clients that write and read at random, and what each read says of the promise that the configuration makes.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::support::Random;

use super::{
    forms::{FORMS, Form, Kind},
    ledger::{Cell, Ledger, Seen},
    reads::{READS, Read},
    session::{Failed, Session},
    world::{Mode, World},
};

/// So many clients write; each has a key of its own in every form.
pub(super) const WRITERS: usize = 6;

const READERS: usize = 10;

/// Writers work for so long, and then not for twice as long, so that replicas catch up now and then.
const BURST: Duration = Duration::from_millis(500);

/// One of so many writes replaces relations; so many reads leave them out for one that does not.
const SELDOM: u64 = 40;

/// So many wrong reads are told in words.
const TOLD: usize = 12;

/// What a load has come to.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    pub(super) reads: u64,
    pub(super) on_replicas: u64,
    pub(super) writes: u64,
    /// Below what was acknowledged before the read was sent.
    pub(super) stale: u64,
    /// Below what the same session had seen or written.
    pub(super) backward: u64,
    /// Above everything that was ever written.
    pub(super) invented: u64,
    /// Statements that failed, by SQLSTATE, and one of each in words.
    pub(super) failed: BTreeMap<String, (u64, String)>,
    /// Some of what was wrong, in words.
    pub(super) told: Vec<String>,
    /// Acknowledged writes of each form.
    pub(super) forms: BTreeMap<&'static str, u64>,
    pub(super) took: Duration,
    /// What Bulkhead counts of reads.
    pub(super) counted: String,
}

struct Shared {
    mode: Mode,
    /// Of Bulkhead, and of the primary itself.
    ports: [u16; 2],
    reads_wanted: u64,
    began: Instant,
    until: Instant,
    over: AtomicBool,
    ledger: Ledger,
    /// The last version that each writer has tried.
    tried: [AtomicU64; WRITERS],
    report: Mutex<Report>,
}

/// One client.
struct Client {
    shared: Arc<Shared>,
    random: Random,
    is_raw: bool,
    name: String,
    /// Of Bulkhead, or of the primary.
    port: u16,
    session: Option<Session>,
    seen: Seen,
}

/// Runs a load until it has read so often, or for so long.
pub(super) async fn run(world: &World, mode: Mode, reads: u64, within: Duration, seed: u64) -> Report {
    let began = Instant::now();
    let shared = Arc::new(Shared {
        mode,
        ports: [world.proxy.port(), world.primary.port()],
        reads_wanted: reads,
        began,
        until: began + within,
        over: AtomicBool::new(false),
        ledger: Ledger::default(),
        tried: Default::default(),
        report: Mutex::default(),
    });
    let mut clients = JoinSet::new();
    for number in 0..WRITERS + READERS {
        let mut client = Client::new(&shared, number, seed);
        clients.spawn(async move {
            if number < WRITERS { client.write_and_read(number).await } else { client.only_read().await }
        });
    }
    let mut random = Random::new(seed);
    while !shared.is_over() {
        world.mishap(&mut random).await;
        if random.below(8) == 0 {
            world.end_a_connection().await;
        }
        tokio::time::sleep(random.pause(400)).await;
    }
    while let Some(ended) = clients.join_next().await {
        ended.expect("no client panics");
    }
    let metrics = world.proxy.metrics().await;
    world.heal().await;
    let mut report = shared.report().clone();
    report.took = began.elapsed();
    let counted = metrics.lines().filter(|line| line.starts_with("bulkhead_replica_reads_total"));
    report.counted = counted.collect::<Vec<_>>().join("\n");
    report
}

// === impl Shared ===

impl Shared {
    fn is_over(&self) -> bool {
        if Instant::now() > self.until || self.report().reads >= self.reads_wanted {
            self.over.store(true, Ordering::Relaxed);
        }
        self.over.load(Ordering::Relaxed)
    }

    fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().expect("no panic while held")
    }

    /// Whether writers are at work.
    fn is_burst(&self) -> bool {
        (self.began.elapsed().as_millis() / BURST.as_millis()).is_multiple_of(3)
    }
}

// === impl Client ===

impl Client {
    fn new(shared: &Arc<Shared>, number: usize, seed: u64) -> Self {
        // One writer of a strong load does not go through Bulkhead.
        let is_past = shared.mode == Mode::Strong && number < 2;
        Self {
            shared: Arc::clone(shared),
            random: Random::new(seed ^ ((number as u64 + 1) << 32)),
            is_raw: !number.is_multiple_of(2),
            name: format!("client {number}"),
            port: shared.ports[usize::from(is_past)],
            session: None,
            seen: Seen::default(),
        }
    }

    async fn write_and_read(&mut self, writer: usize) {
        let is_past = self.port == self.shared.ports[1];
        let mut version = 0;
        while !self.shared.is_over() {
            if !self.shared.is_burst() {
                tokio::time::sleep(Duration::from_millis(20)).await;
                self.read_once().await;
                continue;
            }
            let cell = Cell { form: self.any_form(), writer };
            version += 1;
            self.write_once(cell, version).await;
            // What it has just written, what another wrote, or nothing.
            match self.random.below(3) {
                // Straight at the primary there is nothing to find out.
                _ if is_past => {}
                0 => self.read_cell(cell).await,
                1 => self.read_once().await,
                _ => {}
            }
            tokio::time::sleep(self.random.pause(60)).await;
        }
    }

    async fn only_read(&mut self) {
        while !self.shared.is_over() {
            self.read_once().await;
            // A session that lasts has seen more; one that begins has seen nothing.
            if self.random.below(200) == 0 {
                self.session = None;
            }
            if self.random.below(20) == 0 {
                tokio::time::sleep(self.random.pause(4)).await;
            }
        }
    }

    fn any_form(&mut self) -> usize {
        let is_seldom = self.random.below(SELDOM) == 0;
        loop {
            let form = self.random.below(count_forms() as u64) as usize;
            let wanted = form_of(form);
            let is_sent_so = self.is_raw || !wanted.is_raw();
            if is_sent_so && (wanted.kind == Kind::Replaces) == is_seldom {
                return form;
            }
        }
    }

    async fn write_once(&mut self, cell: Cell, version: u64) {
        let form = form_of(cell.form);
        self.shared.tried[cell.writer].store(version, Ordering::SeqCst);
        let Some(mut session) = self.session().await else { return };
        let written = session.write(form, cell.writer, version).await;
        if written.is_ok() {
            self.shared.ledger.acknowledge(cell, version);
            self.seen.note(cell, version);
            let mut report = self.shared.report();
            report.writes += 1;
            *report.forms.entry(form.name).or_default() += 1;
        }
        let tidied = match written {
            Ok(()) => session.tidy(form, cell.writer, version).await,
            Err(failed) => Err(failed),
        };
        match tidied {
            Ok(()) => self.session = Some(session),
            Err(failed) => self.recover(session, form, cell, version, failed).await,
        }
    }

    /// After a write that failed nothing of it is left that may come into effect later, except where this does no harm.
    async fn recover(&mut self, session: Session, form: &Form, cell: Cell, version: u64, failed: Failed) {
        drop(session);
        if form.kind != Kind::Unknown {
            self.failed(form.name, &failed);
        }
        if form.name != "two_phase" {
            return;
        }
        for _ in 0..20 {
            let Some(mut session) = self.session().await else { continue };
            let undo = format!("ROLLBACK PREPARED '{} {} {version}'", form.name, cell.writer);
            // 42704: there is none.
            let done = session.text(&undo).await.map_or_else(|failed| failed.code == "42704", |_| true);
            if done {
                return;
            }
        }
    }

    async fn read_once(&mut self) {
        // A standby that is behind keeps the locks of what is replaced for as long.
        let is_seldom = self.random.below(SELDOM) == 0;
        let form = loop {
            let form = self.random.below(count_forms() as u64) as usize;
            if is_seldom || form_of(form).kind != Kind::Replaces {
                break form;
            }
        };
        let writer = self.random.below(WRITERS as u64) as usize;
        self.read_cell(Cell { form, writer }).await;
    }

    async fn read_cell(&mut self, cell: Cell) {
        let form = form_of(cell.form);
        let read = self.any_read(form);
        let Some(mut session) = self.session().await else { return };
        let least = self.shared.ledger.bound(cell);
        let seen = self.seen.bound(&self.shared.ledger, cell);
        match read.run(&mut session, form, cell.writer, "").await {
            Err(failed) => {
                // The transaction may still be open.
                self.failed(&format!("{read:?} of {}", form.name), &failed);
            }
            Ok(found) => {
                self.session = Some(session);
                self.judge(cell, read, found.on_replica, [least, seen, found.version]);
                self.seen.note(cell, found.version);
            }
        }
    }

    fn any_read(&mut self, form: &Form) -> Read {
        loop {
            let read = READS[self.random.below(READS.len() as u64) as usize];
            if read.fits(form) && read.fits_session(self.is_raw) {
                return read;
            }
        }
    }

    /// Compares what was found with what was acknowledged and what this session has seen.
    fn judge(&self, cell: Cell, read: Read, on_replica: bool, [least, seen, found]: [u64; 3]) {
        let tried = self.shared.tried[cell.writer].load(Ordering::SeqCst);
        let mut report = self.shared.report();
        report.reads += 1;
        report.on_replicas += u64::from(on_replica);
        let wrong = [
            ("stale", found < least && self.shared.mode != Mode::Session),
            ("backward", found < seen),
            ("invented", found > tried),
        ];
        report.stale += u64::from(wrong[0].1);
        report.backward += u64::from(wrong[1].1);
        report.invented += u64::from(wrong[2].1);
        for (what, _) in wrong.iter().filter(|(_, is_so)| *is_so) {
            let form = form_of(cell.form).name;
            if report.told.len() < TOLD {
                let (name, writer, at) = (&self.name, cell.writer, self.shared.began.elapsed());
                report.told.push(format!(
                    "{what} after {at:?}: {name} by {read:?} of `{form}` key {writer}: {found}; {least} was \
                     acknowledged, {seen} seen; on a replica: {on_replica}"
                ));
            }
        }
    }

    async fn session(&mut self) -> Option<Session> {
        if let Some(session) = self.session.take() {
            return Some(session);
        }
        match Session::open(self.port, self.is_raw).await {
            Ok(session) => {
                self.seen = Seen::default();
                Some(session)
            }
            Err(failed) => {
                self.failed("login", &failed);
                tokio::time::sleep(Duration::from_millis(20)).await;
                None
            }
        }
    }

    fn failed(&self, what: &str, failed: &Failed) {
        let mut report = self.shared.report();
        let entry = report.failed.entry(failed.code.clone());
        let (count, _) = entry.or_insert_with(|| (0, format!("{what}: {}", failed.text)));
        *count += 1;
    }
}

pub(super) fn count_forms() -> usize {
    FORMS.iter().map(|group| group.len()).sum()
}

pub(super) fn form_of(number: usize) -> &'static Form {
    FORMS.iter().copied().flatten().nth(number).expect("a number of a form")
}
