//! What a request demands: the verdicts of the texts in it, and of the prepared statements that it runs.

use super::{
    Ended, Own, Session, View,
    hold::Leased,
    request::{End, Request},
    soon::Soon,
    transaction::LocalTransaction,
};
use crate::{
    clock,
    route::{Demand, Standing, Target},
    shared::judges::SHORT_TEXTS_BYTES,
    sql::{Class, Classifier, Effects, HiddenSearch, Hint, Reading, Reason, Verdict, is_carried_name},
    wire::{
        TxStatus,
        client::{Bind, ClientMessage, Item, Messages, Parse},
        read::{Body, Malformed},
    },
};

/// Texts of a request whose verdicts are not known, and which take too long to be judged here.
#[derive(Debug, Default)]
pub(super) struct Unjudged {
    texts: Vec<Box<[u8]>>,
    /// Bytes of the texts that were judged here.
    judged: usize,
}

/// The functions of large objects (`pg_proc.dat`), which clients call by FunctionCall: `lo_create`, `lo_open` to `lo_tell`,
/// `lo_unlink`, `lo_truncate`, and those of 64 bits. They leave nothing but rows, and descriptors up to the transaction's
/// end.
const LARGE_OBJECTS: [i32; 13] = [715, 952, 953, 954, 955, 956, 957, 958, 964, 1004, 3170, 3171, 3172];

/// Types of a parameter that is a text as it was bound: not given, `text`, `unknown`, `varchar`.
const PLAIN_TEXTS: [u32; 4] = [0, 25, 705, 1043];

/// Functions that do not come with PostgreSQL have higher numbers (`FirstNormalObjectId`).
const FIRST_OF_USERS: i32 = 16_384;

/// Whether a built-in function may set a parameter that the server does not list: `set_config`, and those that run a text
/// (`query_to_xml` and its family, `ts_rewrite`, `ts_stat`).
const fn sets_hidden(function: i32) -> bool {
    matches!(function, 2078 | 2923..=2938 | 3684..=3690)
}

/// Judges requests by where the session stands: it reads parts of the session, and can change none.
#[derive(Clone, Copy)]
pub(super) struct Judge<'a> {
    pub(super) inbox: &'a [u8],
    pub(super) view: &'a View,
    pub(super) own: &'a Own,
    /// How the server reads texts of the session, as far as it has said so.
    pub(super) reading: Reading,
}

impl Session {
    /// The judge of its requests.
    pub(super) fn judge(&self) -> Judge<'_> {
        let reading = self.hold.backend().map_or(self.own.reading, |leased| leased.protocol.reading());
        Judge { inbox: &self.client.inbox, view: &self.view, own: &self.own, reading }
    }
}

impl<'a> Judge<'a> {
    /// The demand of the request at the start of the inbox.
    pub(super) fn classify(self, request: Request) -> Soon<'a, Result<Demand, Ended>> {
        let mut unjudged = Unjudged::default();
        let demand = self.demand(request, &mut unjudged);
        if demand.is_err() || unjudged.texts.is_empty() {
            return Soon::now(demand);
        }
        Soon::later(async move {
            self.judge_elsewhere(unjudged).await;
            // What is still not known stays so.
            self.demand(request, &mut Unjudged::default())
        })
    }

    fn demand(self, request: Request, unjudged: &mut Unjudged) -> Result<Demand, Ended> {
        match request.end {
            End::Query if request.streaming > 0 => Ok(Demand::of(Verdict::too_long())),
            End::Query => {
                let text = self.query_text(request)?;
                let verdict = self.verdict_or_note(text, unjudged);
                let mut demand = Demand::of(verdict);
                if verdict.effects.has(Effects::NAMES_STATEMENT) {
                    self.add_named(&mut demand, verdict, text);
                }
                Ok(demand)
            }
            End::FunctionCall => Ok(Demand::of(self.function_verdict(request))),
            End::Sync | End::Open => {
                let bound = request.bound_name().and_then(|name| self.bound_demand(name, unjudged));
                let Some(demand) = bound else { return self.extended_demand(request, unjudged) };
                if cfg!(debug_assertions) {
                    self.check_bound_demand(request, &demand);
                }
                Ok(demand)
            }
            End::StrayCopy | End::Terminate => Ok(Demand::none()),
        }
    }

    /// Judges texts on another thread, so that their verdicts are known, unless too many are being judged already.
    async fn judge_elsewhere(self, unjudged: Unjudged) {
        let (snapshot, catalog) = (self.view.snapshot.clone(), self.view.catalog.clone());
        let judge = move || {
            for text in &unjudged.texts {
                snapshot.classifier.classify(&catalog.load(), text);
            }
        };
        self.view.snapshot.judges.run(judge).await;
    }

    /// The text of a Query.
    pub(super) fn query_text(self, request: Request) -> Result<&'a [u8], Malformed> {
        let body = self.inbox.get(5..request.len).unwrap_or_default();
        Body::new(body, "Query").text()
    }

    /// The verdict of a text. One that would take long to judge, and has not been judged, has none.
    pub(super) fn verdict(self, text: &[u8]) -> Verdict {
        self.verdict_or_note(text, &mut Unjudged::default())
    }

    /// The verdict of a text, as [`Self::verdict`] gives it; a text that has none is noted.
    fn verdict_or_note(self, text: &[u8], unjudged: &mut Unjudged) -> Verdict {
        if let Some(unread) = Classifier::unread(self.reading, text) {
            return unread;
        }
        let (classifier, catalog) = (&self.view.snapshot.classifier, self.view.catalog.load());
        let verdict = match classifier.lookup(&catalog, text) {
            Ok(verdict) => verdict,
            Err(miss) if unjudged.judged + text.len() <= SHORT_TEXTS_BYTES => {
                unjudged.judged += text.len();
                classifier.judge(&catalog, text, miss)
            }
            Err(_) => {
                unjudged.texts.push(text.into());
                return Verdict::unknown(Reason::Unparsed);
            }
        };
        self.view.snapshot.queries.learn(&verdict, text);
        verdict
    }

    /// The verdict of a FunctionCall: it names its function by number.
    fn function_verdict(self, request: Request) -> Verdict {
        let body = self.inbox.get(5..request.len).unwrap_or_default();
        match Body::new(body, "FunctionCall").int32() {
            Ok(function) if LARGE_OBJECTS.contains(&function) => {
                Verdict::new(Class::Write, Reason::FunctionCall)
            }
            // What it leaves is asked for, and reset before another session gets the backend.
            Ok(function) if function < FIRST_OF_USERS && !sets_hidden(function) => Verdict {
                effects: Effects::OPAQUE.with(Effects::UNPROVEN),
                ..Verdict::new(Class::Write, Reason::FunctionCall)
            },
            _ => Verdict::unknown(Reason::FunctionCall),
        }
    }

    /// By which rules and which catalog this text is judged now.
    pub(super) fn epochs(self, text: &[u8]) -> (u64, u64) {
        let snapshot = &self.view.snapshot;
        let judged = snapshot.classifier_epoch ^ snapshot.classifier.refusals() << 32;
        (judged, self.view.catalog.epoch_of(text))
    }

    /// The verdict of a text, and the versions of all that it depends on: taken before it, so that one which has changed meanwhile
    /// is known to be old.
    pub(super) fn judged(self, text: &[u8]) -> (Verdict, (u64, u64)) {
        let epochs = self.epochs(text);
        (self.verdict(text), epochs)
    }

    pub(super) fn extended_demand(self, request: Request, unjudged: &mut Unjudged) -> Result<Demand, Ended> {
        let mut demand = Demand::none();
        // One Parse is the rule, and needs no list.
        let mut last: Option<(&[u8], Verdict)> = None;
        let mut earlier: Vec<(&[u8], Verdict)> = Vec::new();
        let messages = &self.inbox[..request.len];
        if request.streaming > 0 {
            return Ok(self.streamed_demand(messages, unjudged)?);
        }
        for framed in Messages::of(messages) {
            match framed?.message {
                ClientMessage::Parse(Parse { name, text, types, .. }) => {
                    let verdict = self.typed(self.verdict_or_note(text, unjudged), types);
                    demand.add(verdict);
                    self.add_named(&mut demand, verdict, text);
                    earlier.extend(last.replace((name, verdict)));
                }
                ClientMessage::Bind(bind) => {
                    let name = bind.statement;
                    let mut parsed = last.iter().chain(earlier.iter().rev());
                    let here = parsed.find(|(known, _)| *known == name).map(|(_, verdict)| *verdict);
                    let Some(verdict) = here.or_else(|| self.known_verdict_or_note(name, unjudged)) else {
                        continue;
                    };
                    if verdict.effects.has(Effects::BOUND_SETTING)
                        && !binds_carried_names(verdict.effects, bind)?
                    {
                        demand.verdict.effects |= Effects::UNPROVEN;
                    }
                    let decided = self.decide_by_values(verdict, bind)?;
                    // The Parse has been counted already, unless a value makes this a job.
                    if here.is_none() || decided.class != verdict.class {
                        demand.add(decided);
                    }
                    if here.is_none() && verdict.effects.has(Effects::NAMES_STATEMENT) {
                        let text = self.known_text(name).unwrap_or_default();
                        self.add_named(&mut demand, verdict, text);
                    }
                }
                ClientMessage::Describe(Item::Statement(name)) => {
                    let here = last.iter().chain(&earlier).any(|(known, _)| *known == name);
                    if !here && let Some(verdict) = self.known_verdict_or_note(name, unjudged) {
                        demand.add(verdict);
                    }
                }
                _ => {}
            }
        }
        Ok(demand)
    }

    /// The demand of one message of which only the beginning is there.
    fn streamed_demand(self, message: &[u8], unjudged: &mut Unjudged) -> Result<Demand, Malformed> {
        let (tag, body) = (message.first().copied(), message.get(5..).unwrap_or_default());
        if tag == Some(b'B') {
            let name = Bind::read(body)?.statement;
            if let Some(verdict) = self.known_verdict_or_note(name, unjudged) {
                // Its values have not all been seen.
                let unseen = verdict.effects.has(Effects::BOUND_SETTING);
                return Ok(Demand::of(if unseen { verdict.unproven() } else { verdict }));
            }
        }
        Ok(Demand::of(Verdict::too_long()))
    }

    /// The verdict of a text with these types of parameters: the count and the ids, as in Parse. Making a value of one may
    /// run anything (the check of a domain), and the text need not name it.
    #[inline]
    fn typed(self, verdict: Verdict, types: &[u8]) -> Verdict {
        if types == [0, 0] { verdict } else { self.typed_by(verdict, types) }
    }

    fn typed_by(self, verdict: Verdict, types: &[u8]) -> Verdict {
        let mut body = Body::new(types, "Parse");
        let count = body.int16().unwrap_or_default();
        let catalog = self.view.catalog.load();
        let is_proven = (0..usize::from(count.cast_unsigned())).all(|parameter| {
            // The name of a setting is the value as it was bound, if nothing casts it.
            let fits = |id: u32| !verdict.effects.names_setting(parameter) || PLAIN_TEXTS.contains(&id);
            body.int32()
                .is_ok_and(|id| catalog.proves_parameter_type(id.cast_unsigned()) && fits(id.cast_unsigned()))
        });
        if is_proven { verdict } else { verdict.unproven() }
    }

    /// The verdict of a statement that the session has prepared.
    pub(super) fn known_verdict(self, name: &[u8]) -> Option<Verdict> {
        self.known_verdict_or_note(name, &mut Unjudged::default())
    }

    pub(super) fn known_verdict_or_note(self, name: &[u8], unjudged: &mut Unjudged) -> Option<Verdict> {
        let statements = self.own.statements.as_deref()?;
        if name.is_empty() {
            let unnamed = statements.unnamed.as_ref()?;
            return Some(self.typed(self.verdict_or_note(unnamed.text(), unjudged), unnamed.types()));
        }
        let statement = statements.own(name)?;
        // One without a verdict may have one by now.
        let is_known = statement.epochs == self.epochs(&statement.text) && !statement.verdict.is_unread();
        let verdict = if is_known && self.reading == Reading::Utf8 {
            self.view.snapshot.queries.learn(&statement.verdict, &statement.text);
            statement.verdict
        } else {
            self.verdict_or_note(&statement.text, unjudged)
        };
        Some(self.typed(verdict, &statement.types))
    }

    /// A bound value may make a statement a job's: a channel of pg_notify, a name in a catalog query.
    fn decide_by_values(self, verdict: Verdict, bind: Bind<'_>) -> Result<Verdict, Malformed> {
        if !verdict.effects.has(Effects::BIND_DECIDES) {
            return Ok(verdict);
        }
        let rules = self.view.snapshot.classifier.rules();
        let (mut names_job, mut only_wakes) = (false, verdict.effects.has(Effects::NOTIFIES));
        bind.for_each_value(|value| {
            let is_name = rules.value_names_job(value);
            names_job |= is_name;
            only_wakes &= !is_name || std::str::from_utf8(value).is_ok_and(|channel| rules.wakes(channel));
        })?;
        if names_job {
            // A notification that wakes workers goes where its transaction is; what else is asked, or told, is the job
            // database's.
            let only_reads = verdict.reason == Reason::Catalog;
            let names_tables = verdict.effects.has(Effects::APP_OBJECTS);
            let side = if only_wakes { Effects::NONE } else { Effects::JOB_SIDE };
            let writes = if only_reads { Effects::NONE } else { Effects::JOB_WRITES };
            let mixed = if names_tables { Effects::MIXED } else { Effects::NONE };
            let effects = verdict.effects.with(side).with(writes).with(mixed);
            return Ok(Verdict { class: Class::Job, reason: Reason::JobValue, effects, ..verdict });
        }
        Ok(verdict)
    }
}

impl Session {
    /// Where a request goes.
    pub(crate) fn target(&self, request: Request, demand: &Demand) -> Target {
        if let Some(pool) = self.pool_that_has(request, demand) {
            return Target::Across(pool);
        }
        let routes = &self.view.snapshot.routes;
        let held = self.hold.backend().map(|leased| leased.pool);
        let on_jobs = |pool| routes.jobs.is_some_and(|jobs| self.view.snapshot.same_server(pool, jobs));
        let begun_read_write = match &self.hold.transaction {
            LocalTransaction::Deferred(deferred) => !deferred.fits_standby,
            // What follows before the Sync belongs to the same transaction, and may write.
            _ => request.end == End::Open && !request.only_prepares(),
        };
        // A standby has no serializable transactions.
        let serializable = self.own.settings.is_serializable();
        // What is to have one backend for good must not begin on one that cannot write.
        let may_write = begun_read_write || serializable || self.own.in_session_mode;
        let standing = Standing {
            held,
            held_is_jobs_server: routes.jobs_elsewhere && held.is_some_and(on_jobs),
            holds_both: self.hold.is_both(),
            relays: self.relays(),
            begun_read_write: may_write,
            begins_on_standby: demand.begins.begins_on_standby(self.own.settings.is_read_only()),
            is_worker: self.is_worker(demand),
            asked: if self.under_way.is_repeated { Some(Hint::Primary) } else { self.own.asked },
            bound: self.who.bound,
        };
        routes.target(demand, standing)
    }

    /// Whether a worker sends the request: by its session, a tag, or what the session has just worked on.
    fn is_worker(&self, demand: &Demand) -> bool {
        self.who.is_worker || demand.verdict.is_worker || self.own.works_at(clock::last_tick)
    }

    /// Notes that the session has worked on jobs, if it then counts as a worker's for a while.
    pub(crate) fn worked(&mut self, demand: &Demand) {
        let window = self.view.snapshot.workers.job_window;
        if !window.is_zero() && demand.works_on_jobs() {
            self.own.work_until(clock::last_tick().after(window));
        }
    }

    /// The transaction status that the client is told: of a transaction that no server knows, as long as there is one.
    pub(crate) fn status(&self) -> TxStatus {
        self.hold.status()
    }
}

/// The text of a request, which begins so, is longer than what is kept of it: what cannot be asked for is looked for as it
/// passes.
pub(super) fn begin_search(view: &View, leased: &mut Leased, beginning: &[u8]) {
    leased.left.noted().search = Some(HiddenSearch::default());
    search_in(view, leased, beginning, false);
}

/// Looks at the next piece of a long text.
pub(super) fn search_in(view: &View, leased: &mut Leased, piece: &[u8], is_last: bool) {
    let left = &mut leased.left;
    let Some(search) = left.search() else { return };
    let found = search.finds(&view.catalog.load(), piece);
    if found {
        left.effects |= Effects::OPAQUE_SETTINGS;
    }
    if found || is_last {
        left.noted().search = None;
    }
}

/// Whether the values that a Bind gives for names of settings are names that are carried.
fn binds_carried_names(effects: Effects, bind: Bind<'_>) -> Result<bool, Malformed> {
    let mut are_carried = true;
    bind.for_each_parameter(|parameter, value| {
        if effects.names_setting(parameter) {
            are_carried &= value.is_some_and(is_carried_name);
        }
    })?;
    Ok(are_carried)
}
