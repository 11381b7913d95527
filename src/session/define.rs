//! Definitions of job objects, which are made on the job database and on the primary (`jobs.ddl`): the second one is got
//! ready before anything is sent, and is told what has succeeded on the first one. In a transaction both commit, the job
//! database first: should the primary fail then, what it lacks is what the migration that is run again makes. What keeps other
//! starters of the library out, a lock of the transaction, is held until both have committed, wherever it was taken: one of
//! the job database's is kept there beyond the transaction.

use super::{
    Ended, Session, Stop,
    held::Held,
    hold::{Across, Leased},
    reply::{self, Reply},
    request::{End, Request},
    transaction::LocalTransaction,
};
use crate::{
    backend::{Broken, query::Answer},
    route::Demand,
    sql::{Control, Effects, renamed_away},
    wire::{TxStatus, message},
};

/// Locks that are kept; a migration has one. A COMMIT with more is refused.
const LOCKS_MAX: usize = 5_000;

/// The advisory locks of a backend: the end of the function's name that takes such a lock, and its arguments.
const LOCKS: &str = "SELECT CASE WHEN l.mode OPERATOR(pg_catalog.=) 'ShareLock'::pg_catalog.text THEN '_shared' ELSE '' END, \
    CASE WHEN l.objsubid OPERATOR(pg_catalog.=) 1::pg_catalog.int2 THEN pg_catalog.format('%s::pg_catalog.int8', \
    l.classid::pg_catalog.int8 OPERATOR(pg_catalog.<<) 32 OPERATOR(pg_catalog.|) l.objid::pg_catalog.int8) \
    ELSE pg_catalog.format('%s::pg_catalog.int4, %s::pg_catalog.int4', l.classid::pg_catalog.int4, l.objid::pg_catalog.int4) END \
    FROM pg_catalog.pg_locks l WHERE l.locktype OPERATOR(pg_catalog.=) 'advisory'::pg_catalog.text AND l.granted \
    AND l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()";

/// A statement that takes in what others have defined, also those that a lock of this transaction has waited for: by a lock on
/// a relation that the transaction had not locked. Else a server that has looked for a schema in vain goes on not to find it.
const LOOK_ANEW: &str = "SELECT FROM pg_catalog.pg_locks LIMIT 0";

impl Session {
    /// Whether a request defines job objects that are to be on both servers.
    pub(super) fn defines(&self, demand: &Demand) -> bool {
        let is_asked = || self.who.bound.is_some() || demand.verdict.hint.or(self.own.asked).is_some();
        self.view.snapshot.routes.defines(demand) && !is_asked()
    }

    /// Gets a backend of the primary ready for what is defined on the job database's, which is held.
    pub(super) async fn prepare_definition(
        &mut self,
        request: Request,
        demand: &Demand,
        judged_at: u64,
    ) -> Result<(), Stop> {
        let is_skipping = self.hold.backend().is_some_and(|leased| leased.protocol.is_skipping());
        if self.status() == TxStatus::Failed || is_skipping || !request.runs() {
            return Ok(());
        }
        let sql = self.definition(request)?;
        if !self.view.snapshot.routes.defines_on_both(demand) {
            return Err(reply::defines_on_one_server("it adds jobs, too").into());
        }
        if let Some(renamed) = renamed_away(self.view.snapshot.classifier.rules(), sql.as_bytes()) {
            return Err(reply::renames_jobs_away(&renamed).into());
        }
        if !self.hold.is_both() {
            let opening = match &self.hold.transaction {
                LocalTransaction::Deferred(deferred) => deferred.texts.clone(),
                _ => self.hold.across.as_ref().map(|across| across.opening().to_vec()).unwrap_or_default(),
            };
            if opening.is_empty() && self.status() != TxStatus::Idle {
                return Err(self.torn(request, demand).into());
            }
            let transaction = std::mem::take(&mut self.hold.transaction);
            let primary = self.view.snapshot.routes.primary;
            let mut second = self.second(request, demand, judged_at, primary).await;
            if second.is_ok() {
                for text in &opening {
                    if let Err(stop) = self.say(&String::from_utf8_lossy(text)).await {
                        second = Err(stop);
                        break;
                    }
                }
                if let Some(Held { leased, .. }) = self.held_if_any() {
                    leased.left.effects |= demand.verdict.effects.with(Effects::DDL);
                }
                self.change_places();
            }
            self.hold.transaction = transaction;
            second?;
        }
        self.look_anew().await?;
        let across = self.hold.across.get_or_insert_with(|| Across::default().into());
        (across.echo, across.defines) = (Some(sql.into_bytes().into()), true);
        if self.status() == TxStatus::Idle {
            // It is done when it is done on both.
            self.held().leased.protocol.hold_ready();
        }
        Ok(())
    }

    /// The definition that a request executes, as it is said to the second server.
    fn definition(&self, request: Request) -> Result<String, Stop> {
        if self.hold.is_amid_pipeline() || request.end == End::Open {
            return Err(reply::defines_on_one_server("its pipeline goes on before it is made").into());
        }
        let judge = self.judge();
        match (judge.executed_sql(request)?, judge.executes_one(request)?) {
            (Some(sql), _) => Ok(sql),
            (None, true) => Err(reply::defines_on_one_server("it has binary values").into()),
            (None, false) => {
                Err(reply::defines_on_one_server("it is one of several statements of a pipeline").into())
            }
        }
    }

    /// Lets both servers take in, before the first definition in a transaction, what others have defined.
    async fn look_anew(&mut self) -> Result<(), Stop> {
        if self.hold.across.as_ref().is_some_and(|across| across.defines) {
            return Ok(());
        }
        for _ in 0..2 {
            if self.hold.backend().is_some_and(|leased| leased.protocol.status() == TxStatus::Open) {
                self.say(LOOK_ANEW).await?;
            }
            self.change_places();
        }
        Ok(())
    }

    /// Whether requests go to the job database.
    pub(super) fn is_on_jobs(&self) -> bool {
        let snapshot = &self.view.snapshot;
        let is_of_jobs = |leased: &Leased| {
            snapshot.routes.jobs.is_some_and(|jobs| snapshot.same_server(leased.pool, jobs))
        };
        self.hold.backend().is_some_and(is_of_jobs)
    }

    /// Before the COMMIT of a transaction that has defined something on both: keeps the locks of the job database's backend, and
    /// commits what was defined there, if the COMMIT itself goes to the primary.
    pub(super) async fn commit_definitions(
        &mut self,
        request: Request,
        control: Control,
    ) -> Result<(), Stop> {
        let defines = self.hold.across.as_ref().is_some_and(|across| across.defines);
        if !defines || control != Control::Commit || self.status() != TxStatus::Open {
            return Ok(());
        }
        if !request.end.is_complete() {
            // What follows before the Sync may fail, and the first one has committed then.
            return Err(reply::ends_on_two_servers().into());
        }
        if self.is_on_jobs() {
            self.held().leased.keep_locks().await?;
        } else {
            self.commit_beside().await?;
        }
        // It is done when it is done on both.
        self.held().leased.protocol.hold_ready();
        Ok(())
    }

    /// Commits what was defined on the job database, whose backend is beside.
    async fn commit_beside(&mut self) -> Result<(), Stop> {
        let beside = self.hold.across.as_mut().and_then(|across| across.beside.as_mut());
        let Some(beside) = beside.filter(|beside| beside.protocol.status() == TxStatus::Open) else {
            return Err(reply::definitions_not_committed().into());
        };
        beside.keep_locks().await?;
        // A cancel finds what the client waits for.
        self.who.key.holds(&beside.cancel);
        let answer = beside.commit().await;
        let is_over = beside.protocol.quiescent().is_some();
        self.who.key.holds_none();
        if let Some(Held { who, leased, .. }) = self.held_if_any() {
            who.key.holds(&leased.cancel);
        }
        let reply = match answer {
            Ok(Answer { error: None, notices, .. }) => {
                self.client.outbox.extend_from_slice(&notices);
                return Ok(());
            }
            Ok(Answer { error: Some(fields), .. }) if is_over => Reply::from_server(&fields),
            // Also if the server has ended the connection: it may have done so behind the COMMIT.
            _ => reply::definitions_not_committed(),
        };
        self.end_other("ROLLBACK").await?;
        Err(reply.into())
    }

    /// Behind the COMMIT of a transaction that has defined something on both: commits the primary's part if it was the job
    /// database's, or lets go of what the job database's backend has kept.
    pub(super) async fn finish_definitions(&mut self) -> Result<(), Ended> {
        let is_over = self.status() == TxStatus::Idle && !self.hold.is_amid_pipeline();
        let is_on_jobs = self.is_on_jobs();
        let Some(across) = self.hold.across.as_mut().filter(|across| across.defines && is_over) else {
            return Ok(());
        };
        let commits = across.commits && !across.failed;
        let is_ended = self.end_other(if commits { "COMMIT" } else { "ROLLBACK" }).await?;
        if is_on_jobs && commits && !is_ended {
            tracing::warn!(
                "definitions of job objects were committed on the job database; the primary has not said so"
            );
            // It has not been told that it may go on.
            reply::definitions_only_there().error(&mut self.client.outbox);
        }
        Ok(())
    }

    /// Lets go of the locks that the backend has kept. If it does not, it is closed.
    pub(super) async fn let_go_of_locks(&mut self) -> Result<(), Ended> {
        let Held { client, leased, .. } = self.held();
        let Err(broken) = leased.let_go_of_locks().await else { return Ok(()) };
        if leased.protocol.take_held_ready() {
            message::ready(&mut client.outbox, TxStatus::Idle);
        }
        self.end_lease(broken)
    }
}

impl Leased {
    /// Keeps the locks of its transaction beyond the end of that: until it is settled.
    pub(super) async fn keep_locks(&mut self) -> Result<(), Reply> {
        let locks = self.say(LOCKS).await?.rows;
        if locks.len() > LOCKS_MAX {
            return Err(reply::too_many_locks(LOCKS_MAX));
        }
        let calls = |verb: &str| {
            let call = |lock: &Vec<Option<String>>| match lock.as_slice() {
                [Some(kind), Some(key)] => {
                    Some(format!("SELECT pg_catalog.pg_advisory_{verb}{kind}({key});"))
                }
                _ => None,
            };
            locks.iter().filter_map(call).collect::<String>()
        };
        if !locks.is_empty() {
            self.unlock = Some(calls("unlock").into());
            // The backend has them: it waits for nobody.
            self.say(&calls("lock")).await?;
        }
        Ok(())
    }

    /// Says something of ours in its transaction.
    async fn say(&mut self, sql: &str) -> Result<Answer, Reply> {
        match self.ask(sql).await {
            Ok(Answer { error: Some(fields), .. }) => Err(Reply::from_server(&fields)),
            Ok(answer) => Ok(answer),
            Err(broken) => Err(reply::transaction_lost(&broken, None)),
        }
    }

    async fn let_go_of_locks(&mut self) -> Result<(), Broken> {
        if self.cancel.was_hit() {
            self.outlive_cancel().await?;
        }
        let unlock = self.unlock.take().unwrap_or_default();
        match self.ask(&unlock).await?.error {
            None => Ok(()),
            Some(_) => Err(self.given_up("it does not let go of its locks")),
        }
    }
}
