//! A session that uses two servers at once: the application's and that of the jobs, where these are different ones.
//!
//! It holds a backend of each then. One is the one that requests go to (`hold.leased`), the other one is *beside*; they
//! change places when a request belongs to the other server. A transaction is opened on the second server as it was on the
//! first: BEGIN and the savepoints and local settings since then are said there, too. As long as only one of the two has
//! written, nothing can be torn apart: its COMMIT is the transaction's, and the other one's ends behind it. A request that
//! would write on the second one is refused.

use std::time::Duration;

use super::{
    Ended, Session, Stop,
    held::Held,
    hold::{Across, Hold, Leased, Work},
    reply::{self, Reply},
    request::Request,
    transaction::{Deferred, LocalTransaction},
};
use crate::{
    backend::{
        Broken,
        handover::{Needs, NotReady},
        query::{ASK_TIMEOUT, Answer},
    },
    route::{Demand, PoolId},
    sql::{Class, Control, Effects, Verdict},
    wire::TxStatus,
};

/// The work that a request does, on its own server. What it `defines` on both is committed on both.
fn work_of(verdict: &Verdict, defines: bool) -> Work {
    match verdict.class {
        Class::Job if defines => Work::Reads,
        Class::Neutral => Work::Neutral,
        Class::Read => Work::Reads,
        Class::Job if !verdict.effects.has(Effects::JOB_WRITES) => Work::Reads,
        Class::Job if !verdict.effects.has(Effects::JOB_SIDE.with(Effects::MIXED)) => Work::Adds,
        Class::Write | Class::Job => Work::Writes,
    }
}

/// The longest that a client waits for the second server: a definition may build an index there, or wait for others
/// who use the table; a COMMIT may wait for a synchronous standby. The client's cancel, or a timeout of its own, ends it before.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(3600);

/// Effects that hold on for the rest of a transaction, on the backend where they are had.
const LASTS: Effects = Effects::SETS
    .with(Effects::RESETS)
    .with(Effects::SETS_UNLISTED)
    .with(Effects::OPAQUE_SETTINGS)
    .with(Effects::LOCAL)
    .with(Effects::LISTENS)
    .with(Effects::UNLISTENS);

/// Whether a request does nothing but set, give up or return to a savepoint, or set something for the rest of the transaction.
fn is_within(demand: &Demand) -> bool {
    demand.verdict.control == Control::Prologue || demand.verdict.effects.has(Effects::WITHIN)
}

impl Held<'_> {
    /// Notes what the request, which is about to be sent, does to its server.
    pub(super) fn note_work(&mut self, request: Request, demand: &Demand) {
        let status = self.status();
        let control = demand.verdict.control;
        let is_one = control != Control::None && demand.statements == 1;
        let text = if is_one { self.judge().executed_text(request).ok().flatten() } else { None };
        let text = text.map(Box::<[u8]>::from);
        // A BEGIN in one request with the first statements, as JDBC's driver sends it.
        let first = if demand.begins != Control::None && !is_one && request.is_synced() {
            self.judge().texts(request).first().copied().map(Box::<[u8]>::from)
        } else {
            None
        };
        if let LocalTransaction::Deferred(deferred) = &*self.transaction
            && !self.is_both()
        {
            *self.across = Some(Across::of(deferred).into());
        }
        if !request.runs() {
            // What is only prepared does nothing: its values may still send it to the other server.
            return;
        }
        let Self { view, leased, .. } = self;
        let work = work_of(&demand.verdict, view.snapshot.routes.defines_on_both(demand));
        let goes_on = leased.protocol.status() != TxStatus::Idle || leased.protocol.is_open();
        // What is said in a failed transaction does nothing.
        let work = if leased.protocol.status() == TxStatus::Failed { Work::Neutral } else { work };
        leased.work = if goes_on { leased.work.max(work) } else { work };
        leased.adds_jobs |= demand.adds_jobs();
        let is_open = leased.protocol.is_open();
        self.note_there(request, demand);
        let across = &mut *self.across;
        if matches!(control, Control::Begin { .. }) && status == TxStatus::Idle && !goes_on {
            let across = across.get_or_insert_default();
            (across.opening, across.is_local) = (text.into_iter().collect(), false);
            return;
        }
        if let Some(first) = first.filter(|_| status == TxStatus::Idle && !goes_on) {
            let across = across.get_or_insert_default();
            (across.opening, across.is_local) = (vec![first], demand.verdict.effects.has(LASTS));
            return;
        }
        let Some(across) = across else { return };
        // What has failed in a pipeline lasts to its Sync.
        across.failed &= is_open;
        across.commits = control == Control::Commit && status == TxStatus::Open;
        match (text, control) {
            (_, Control::None) => across.is_local |= demand.verdict.effects.has(LASTS),
            (_, Control::Begin { .. } | Control::Commit | Control::Rollback) => {}
            (Some(text), _) if is_within(demand) => {
                across.has_savepoint |= demand.verdict.effects.has(Effects::SAVEPOINT);
                across.push(&text);
            }
            _ => across.is_local = true,
        }
    }
}

impl Session {
    /// Goes over to a backend of the other server for a request, or says why it cannot.
    pub(super) async fn cross(
        &mut self,
        request: Request,
        demand: &Demand,
        judged_at: u64,
        pool: PoolId,
    ) -> Result<(), Stop> {
        if self.hold.is_amid_pipeline() {
            return self.stay_amid_pipeline(request, demand, pool);
        }
        if self.hold.is_both() && demand.verdict.control != Control::None {
            if !request.runs() {
                return Ok(());
            }
            return self.end_or_echo(request, demand).await;
        }
        // The server where the transaction has failed says so.
        if self.status() == TxStatus::Failed {
            // What stands behind its end, or behind a return to a savepoint, would run on that server, too.
            if demand.verdict.control != Control::None && !self.is_at(pool) {
                return Err(self.torn(request, demand).into());
            }
            return Ok(());
        }
        if self.hold.is_both() && self.status() == TxStatus::Open && demand.verdict.effects.has(LASTS) {
            return Err(reply::lasts_on_two_servers().into());
        }
        let is_here = self.is_at(pool);
        if !is_here && self.is_tied() {
            return Err(self.torn(request, demand).into());
        }
        if !self.may_write_there(demand, is_here) {
            if is_here && self.hold.is_both() && demand.adds_jobs() && !demand.mixed && self.relays() {
                // Where the application has written they are part of its transaction.
                self.change_places();
                return Ok(());
            }
            let is_carried = self.carry_over(request, demand, judged_at, pool).await?;
            return if is_carried { Ok(()) } else { Err(self.torn(request, demand).into()) };
        }
        if is_here {
            return Ok(());
        }
        let in_transaction = self.status() != TxStatus::Idle;
        let ends = demand.verdict.control != Control::None;
        if in_transaction && ends && self.hold.backend().is_some_and(|leased| leased.work >= Work::Adds) {
            // It would end the part of the transaction that has changed nothing, and only that.
            return Err(reply::ends_on_two_servers().into());
        }
        let across = self.hold.across.get_or_insert_default();
        if in_transaction && !across.is_open_beside() {
            let texts = across.opening().to_vec();
            if texts.is_empty() {
                return Err(self.torn(request, demand).into());
            }
            self.hold.transaction =
                LocalTransaction::Deferred(Deferred { texts, fits_standby: false }.into());
        }
        if across.is_both() {
            return self.go_beside().await;
        }
        self.second(request, demand, judged_at, pool).await
    }

    /// Goes over to the backend beside. Settings that the session has made since it was there hold there, too.
    async fn go_beside(&mut self) -> Result<(), Stop> {
        self.change_places();
        let Held { own, leased, .. } = self.held();
        let needs = Needs {
            settings: &own.settings,
            is_own: true,
            forgets_sequences: false,
            forgets_statements: false,
            closes: false,
        };
        if leased.protocol.quiescent().is_none() || leased.is_ready(needs) {
            return Ok(());
        }
        match leased.make_ready(needs).await {
            Ok(()) => Ok(()),
            Err(NotReady::Refused(fields)) => Err(reply::settings_failed(&fields).into()),
            Err(NotReady::Broken(broken)) => {
                let reply = reply::not_sent(&broken);
                self.end_lease(broken)?;
                Err(reply.into())
            }
            // It is never reset: what is on it is the session's own.
            Err(NotReady::Unclean) => Err(reply::lost_synchronization().into()),
        }
    }

    /// Takes a second backend, of this pool; the first one is beside then.
    pub(super) async fn second(
        &mut self,
        request: Request,
        demand: &Demand,
        judged_at: u64,
        pool: PoolId,
    ) -> Result<(), Stop> {
        self.who.key.holds_none();
        self.hold.across.get_or_insert_default().beside = self.hold.leased.take();
        let checked_out = self.checkout(request, demand, judged_at, pool).await;
        if checked_out.is_err() {
            self.hold.transaction = LocalTransaction::No;
            self.change_places();
        }
        checked_out
    }

    /// Whether the request may be run on the backend that requests go to, or on the other one, beside what was done on the
    /// respective other one.
    pub(super) fn may_write_there(&self, demand: &Demand, is_here: bool) -> bool {
        let Hold { leased, across, .. } = &self.hold;
        let beside = across.as_ref().and_then(|across| across.beside.as_ref());
        let other = if is_here { beside } else { leased.as_ref() };
        let in_transaction = |leased: &Leased| leased.protocol.status() != TxStatus::Idle;
        let has_written = other.is_some_and(|other| in_transaction(other) && other.work >= Work::Adds);
        !has_written
            || work_of(&demand.verdict, self.view.snapshot.routes.defines_on_both(demand)) < Work::Adds
    }

    /// Whether the session cannot go over to another backend: what belongs to this one it knows of one only.
    fn is_tied(&self) -> bool {
        self.own.has_aliases() || self.own.has_sql_names() || self.own.listens_there()
    }

    /// Whether the backend that requests go to is at this pool's server.
    pub(super) fn is_at(&self, pool: PoolId) -> bool {
        self.hold.backend().is_some_and(|leased| self.view.snapshot.same_server(leased.pool, pool))
    }

    /// Between a Flush and its Sync nothing can change places: the request stays where its pipeline is, or is refused.
    fn stay_amid_pipeline(&self, request: Request, demand: &Demand, pool: PoolId) -> Result<(), Stop> {
        let is_here = self.is_at(pool);
        let is_skipping = self.hold.backend().is_some_and(|leased| leased.protocol.is_skipping());
        let is_plain = demand.verdict.control == Control::None || !self.hold.is_both();
        let may_stay = is_here && is_plain && self.may_write_there(demand, is_here);
        // What has failed is skipped up to the Sync, whatever it is.
        if is_skipping || may_stay {
            return Ok(());
        }
        Err(self.torn(request, demand).into())
    }

    /// Transaction control where both servers have a part of the transaction: its end belongs to the one that has written,
    /// savepoints to both.
    async fn end_or_echo(&mut self, request: Request, demand: &Demand) -> Result<(), Stop> {
        let control = demand.verdict.control;
        if !self.judge().executes(request) {
            // A portal of it would be executed by a request that does not say what it is.
            return Err(reply::ends_on_two_servers().into());
        }
        let text =
            self.judge().executed_text(request)?.filter(|_| demand.statements == 1).map(<[u8]>::to_vec);
        let Held { leased, across: Some(across), .. } = self.held() else { return Ok(()) };
        match control {
            Control::Commit | Control::Rollback => {
                let is_open = leased.protocol.status() == TxStatus::Open;
                let has_written =
                    |leased: &Leased| leased.protocol.status() != TxStatus::Idle && leased.work >= Work::Adds;
                if is_open
                    && control == Control::Commit
                    && has_written(leased)
                    && across.beside.as_deref().is_some_and(has_written)
                {
                    return Err(reply::ends_on_two_servers().into());
                }
                // What was done there before the transaction does not count.
                let more_there = across.is_open_beside()
                    && across.beside.as_ref().is_some_and(|beside| beside.work > leased.work);
                if is_open && more_there {
                    self.change_places();
                }
                self.commit_definitions(request, control).await?;
            }
            Control::Begin { .. } | Control::None => {}
            // A server where the transaction is not open is told when it is opened there.
            Control::Prologue | Control::Other if !across.is_open_beside() => {}
            Control::Prologue | Control::Other => {
                across.echo = text.filter(|_| is_within(demand)).map(Vec::into_boxed_slice);
                if across.echo.is_none() {
                    return Err(reply::ends_on_two_servers().into());
                }
            }
        }
        Ok(())
    }

    /// The backend beside is the one that requests go to from now on, and the other one is beside.
    pub(super) fn change_places(&mut self) {
        let Hold { leased, across: Some(across), .. } = &mut self.hold else { return };
        self.who.key.holds_none();
        std::mem::swap(leased, &mut across.beside);
        if let Some(leased) = leased {
            self.who.key.holds(&leased.cancel);
            self.own.last = Some((leased.pool, leased.id, leased.uses));
            self.own.is_new_backend = false;
        }
        self.begin_listening_lease();
    }

    /// Ends the session's hold on the backend beside.
    pub(super) fn part_beside(&mut self) -> Option<Box<Leased>> {
        let beside = self.hold.across.take()?.beside.take()?;
        let main = self.hold.leased.replace(beside);
        let beside = self.part();
        self.hold.leased = main;
        beside
    }

    /// After a request of a session that uses, or may come to use, two servers: what its second backend is to be told.
    pub(super) async fn settle_across(&mut self) -> Result<(), Ended> {
        self.echo().await?;
        if self.status() != TxStatus::Idle || self.hold.is_amid_pipeline() || self.client.skipping {
            return Ok(());
        }
        let is_held = self.hold.has_backend();
        let Some(across) = &mut self.hold.across else { return Ok(()) };
        (across.opening, across.is_local, across.has_savepoint) = (Vec::new(), false, false);
        let commits = std::mem::take(&mut across.commits) && !across.failed;
        match &across.beside {
            None => {
                self.hold.across = None;
                return Ok(());
            }
            // Both are the session's own for longer.
            Some(beside) if is_held && beside.is_its_own() => {
                return Ok(());
            }
            Some(_) => {}
        }
        self.end_other(if commits { "COMMIT" } else { "ROLLBACK" }).await?;
        match &mut self.hold.across {
            Some(across) if across.is_both() => across.defines = false,
            across => *across = None,
        }
        Ok(())
    }

    /// Tells the backend beside what has succeeded on the other one and concerns both.
    pub(super) async fn echo(&mut self) -> Result<(), Ended> {
        if self.hold.is_amid_pipeline() {
            return Ok(());
        }
        if let Some(across) = &mut self.hold.across
            && let Some(text) = across.echo.take()
            && !across.failed
            && let Some(beside) = &mut across.beside
        {
            let text = String::from_utf8_lossy(&text).into_owned();
            // A cancel finds what the client waits for.
            self.who.key.holds(&beside.cancel);
            let limit = if across.defines { CLIENT_TIMEOUT } else { ASK_TIMEOUT };
            let said = beside.ask_within(limit, &text).await;
            self.who.key.holds_none();
            if let Some(leased) = &self.hold.leased {
                self.who.key.holds(&leased.cancel);
            }
            let (error, reply) = match said {
                Ok(Answer { error: None, .. }) => return Ok(()),
                Ok(Answer { error: Some(fields), .. }) => (fields.to_string(), Reply::from_server(&fields)),
                Err(broken) => (broken.to_string(), reply::transaction_lost(&broken, None)),
            };
            if across.defines {
                tracing::warn!(
                    error,
                    "a definition of job objects was made on the job database and not on the primary"
                );
            }
            // The two are not at the same point any more.
            across.is_local = true;
            let is_told = self.under_way.parts.go_on() || self.status() == TxStatus::Idle;
            if is_told {
                self.fail_transaction().await?;
                // It has not been told that it may go on.
                reply.error(&mut self.client.outbox);
            } else {
                self.roll_back_both().await?;
                self.hold.transaction = LocalTransaction::Lost(reply);
            }
        }
        Ok(())
    }

    /// Rolls the transaction back on both servers.
    pub(super) async fn roll_back_both(&mut self) -> Result<(), Ended> {
        self.end_other("ROLLBACK").await?;
        if let Some(Held { leased, .. }) = self.held_if_any()
            && leased.protocol.status() != TxStatus::Idle
            && let Err(broken) = leased.ask("ROLLBACK").await
        {
            self.end_lease(broken)?;
        }
        if self.hold.is_quiescent() { self.settle_held().await } else { Ok(()) }
    }

    /// Ends the part of the transaction on the backend beside, which has written nothing that is to stay, and gives that back
    /// if nothing is left on it.
    /// Returns whether it has ended so.
    pub(super) async fn end_other(&mut self, sql: &str) -> Result<bool, Ended> {
        let Some(across) = &mut self.hold.across else { return Ok(false) };
        // A part that has only read does not wait for others.
        let limit = if sql == "COMMIT" && across.defines { CLIENT_TIMEOUT } else { ASK_TIMEOUT };
        let Some(beside) = across.beside.take() else { return Ok(false) };
        let main = self.hold.leased.replace(beside);
        let is_ended = match self.end_beside(limit, sql).await {
            Ok(is_ended) => is_ended,
            Err(ended) => {
                // It parts from what it holds as at any end.
                self.hold.leased = main;
                return Err(ended);
            }
        };
        let beside = self.hold.leased.take();
        match (main, beside) {
            (Some(main), Some(beside)) => {
                self.hold.leased = Some(beside);
                self.hold.across.get_or_insert_default().beside = Some(main);
                self.change_places();
            }
            (main, beside) => {
                self.hold.leased = main.or(beside);
                if let Some(Held { who, own, leased, .. }) = self.held_if_any() {
                    who.key.holds(&leased.cancel);
                    own.last = Some((leased.pool, leased.id, leased.uses));
                }
            }
        }
        Ok(is_ended)
    }

    /// Ends what the backend has of a transaction so, and gives it back if nothing is left on it. Whether it has ended so.
    pub(super) async fn end_beside(&mut self, limit: Duration, sql: &str) -> Result<bool, Ended> {
        let Held { who, client, leased, .. } = self.held();
        let mut is_ended = false;
        if leased.protocol.status() != TxStatus::Idle {
            // A cancel finds what the client waits for.
            who.key.holds(&leased.cancel);
            let broken = match leased.ask_within(limit, sql).await {
                Ok(answer) if leased.protocol.quiescent().is_some() => {
                    is_ended = answer.error.is_none();
                    client.outbox.extend_from_slice(&answer.notices);
                    None
                }
                Ok(_) => Some(leased.given_up("it does not end its part of a transaction")),
                Err(broken) => Some(broken),
            };
            if let Some(broken) = broken {
                return self.end_lease(broken).map(|()| false);
            }
        }
        self.settle_held().await?;
        Ok(is_ended)
    }
}

impl Leased {
    /// Whether it is kept outside of transactions, and nothing may have changed that.
    fn is_its_own(&self) -> bool {
        let is_idle = self.protocol.status() == TxStatus::Idle;
        is_idle && self.is_pinned() && !self.left.effects.has(Effects::ENDS_STATE)
    }

    /// Commits its part of a transaction, which takes as long as the client waits for it.
    pub(super) async fn commit(&mut self) -> Result<Answer, Broken> {
        self.ask_within(CLIENT_TIMEOUT, "COMMIT").await
    }
}
