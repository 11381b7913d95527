//! The one decision after each request: give the backend back, keep it, or close it.
//!
//! What is known is looked at, `settled` decides, and what it has decided is done. If that was a question to the server,
//! its answer is known too, and is looked at with the rest.

use std::sync::atomic::Ordering;

use super::{
    Ended, Session,
    fresh::leave_changes,
    held::Held,
    hold::Leased,
    kinds::LEAVES_STATE,
    settled::{Question, Settle, settled},
    transaction::LocalTransaction,
};
use crate::{
    backend::{
        Broken,
        doing::Phase,
        probe::PinReason,
        protocol::{Failure, Transient},
        statements::UnnamedText,
    },
    sql::Effects,
    wire::{TxStatus, message},
};

impl Session {
    /// Gives the backend back, unless a cancel has hit it meanwhile.
    pub(super) fn give_back(&mut self) {
        // In this order: once the session holds nothing, no cancel from another thread can be registered any more.
        self.who.key.holds_none();
        let Held { who, leased, .. } = self.held();
        let Some(proof) = leased.protocol.quiescent().filter(|_| !leased.cancel.was_hit()) else {
            who.key.holds(&leased.cancel);
            return;
        };
        if let Some(mut leased) = self.part_unreachable() {
            // An error of ours that nobody asked for is not the next session's.
            leased.protocol.take_error();
            leased.protocol.set_heard_elsewhere(None);
            leased.note_transaction(&self.view.snapshot);
            leased.into_lease().release(proof);
        }
    }

    /// After a request: in a transaction or between Flush and Sync the lease is kept; otherwise the server is
    /// asked what was left, if anything can have been, and the lease is kept (pinned) or given back.
    pub(super) async fn settle(&mut self) -> Result<(), Ended> {
        if let Some(sql) = self.under_way.take_restore() {
            Box::pin(self.restore(&sql)).await?;
        }
        if !self.hold.is_amid_pipeline() {
            self.own.end_statements();
        }
        if self.hold.across.is_some() {
            // Before the client is told that it is ready.
            Box::pin(self.echo()).await?;
            Box::pin(self.finish_definitions()).await?;
        }
        if self.hold.is_quiescent() {
            Box::pin(self.settle_held()).await?;
        }
        if let Some(held) = self.held_if_any() {
            held.leased.note_rest();
        }
        if self.hold.across.is_some() { Box::pin(self.settle_across()).await } else { Ok(()) }
    }

    pub(super) async fn settle_held(&mut self) -> Result<(), Ended> {
        // Its client has been answered: a cancel that comes from here on finds nothing to cancel, and does not keep the
        // backend from being given back.
        self.who.key.holds_none();
        let settled = self.settle_answered().await;
        if let Some(Held { who, leased, .. }) = self.held_if_any() {
            who.key.holds(&leased.cancel);
        }
        settled
    }

    async fn settle_answered(&mut self) -> Result<(), Ended> {
        let Held { view, leased, .. } = self.held();
        leased.end_statements();
        // From here on it counts as not proven if definitions have changed: what changes later has not touched it.
        view.note_traces(leased);
        let mut was_asked = false;
        while let Some(Held { client, view, own, leased, .. }) = self.held_if_any() {
            match settled(leased.facts(own, client.streaming > 0, false, was_asked)) {
                Settle::Ask(question) => {
                    was_asked |= question == Question::Residue;
                    self.ask(question).await?;
                }
                Settle::PinByStatement => {
                    leased.set_pin(&view.snapshot.metrics, Some(PinReason::UnnamedStatement));
                    break;
                }
                Settle::Keep => {
                    if std::mem::take(&mut leased.adds_jobs) {
                        view.snapshot.added_jobs();
                    }
                    leased.left.begin_anew(view.catalog.changes());
                    if leased.is_kept && !was_asked {
                        let lasting = leased.lasting_pin();
                        leased.set_pin(&view.snapshot.metrics, lasting);
                    }
                    break;
                }
                Settle::Release => {
                    self.give_back();
                    break;
                }
                Settle::Wait => break,
            }
        }
        Ok(())
    }

    /// Asks the server. Without an answer the hold on the backend ends.
    async fn ask(&mut self, question: Question) -> Result<(), Ended> {
        match question {
            Question::Locks => return Box::pin(self.let_go_of_locks()).await,
            Question::Channels => return self.settle_listening().await,
            _ => {}
        }
        let mut held = self.held();
        let mut asking = held.asking();
        let answered = match question {
            Question::Locks | Question::Channels | Question::Life => asking.leased.outlive_cancel().await,
            Question::Statements => asking.ask_statements().await,
            Question::Aliases => asking.remove_aliases().await,
            Question::Residue => asking.ask_residue().await,
        };
        answered.or_else(|broken| self.end_lease(broken))
    }

    /// Ends the session's hold on its backend. Every lease ends by this, whichever way: what must follow from it cannot
    /// be forgotten on one of them.
    pub(super) fn part(&mut self) -> Option<Box<Leased>> {
        self.hold.leased.as_ref()?;
        self.who.key.holds_none();
        self.part_unreachable()
    }

    /// The same, when no cancel finds the backend any more.
    #[inline]
    fn part_unreachable(&mut self) -> Option<Box<Leased>> {
        let mut leased = self.hold.leased.take()?;
        if let Some(across) = &mut self.hold.across {
            // What has become of the request is not known, or nothing is to be said of it; its part of a transaction is lost.
            across.echo = None;
            across.commits &= leased.protocol.status() == TxStatus::Idle;
        }
        leave_changes(&self.view.snapshot, &mut leased);
        if leased.adds_jobs {
            self.view.snapshot.added_jobs();
        }
        self.view.note_definitions(&mut leased.left);
        Some(leased)
    }

    /// Closes the backend, for this reason: what is on it is not known. A session that may have state on it ends with it,
    /// as with any lost connection: to go on without a lock or a table that it believes to have would be worse.
    pub(super) fn end_lease(&mut self, broken: Broken) -> Result<(), Ended> {
        let had_state = self.hold.is_pinned() || self.hold.may_have_left(LEAVES_STATE);
        if self.part().is_some() && had_state {
            return Err(Ended::Backend(broken.into()));
        }
        tracing::debug!(%broken, "a backend is closed");
        Ok(())
    }

    /// A statement was refused here: the open transaction on the backend, if there are these, fails too.
    pub(crate) async fn fail_transaction(&mut self) -> Result<(), Ended> {
        let Some(Held { client, own, leased, under_way, .. }) = self.held_if_any() else { return Ok(()) };
        let in_transaction = under_way.was_in_transaction || leased.protocol.status() != TxStatus::Idle;
        if leased.protocol.is_open() {
            // Replies are still to come, and a Sync is not ours to send: what was begun ends with its backend.
            let broken = leased.given_up("a statement was refused before it had answered those before it");
            if leased.protocol.is_amid_message() {
                return Err(Ended::Amid(broken.into()));
            }
            self.end_lease(broken)?;
            if in_transaction {
                self.hold.transaction = LocalTransaction::Failed;
            }
            return Ok(());
        }
        if leased.protocol.status() != TxStatus::Open {
            return Ok(());
        }
        let told = leased.protocol.parameters().to_vec();
        // No such statement exists: the server's log says why the transaction was ended.
        let failed = leased.ask("bulkhead refused a statement of this transaction").await;
        // What it had set is undone, and the client is told so as by a server.
        client.tell_changed(&told, leased.protocol.parameters());
        own.reading = leased.protocol.reading();
        if let Err(broken) = failed {
            self.end_lease(broken)?;
            self.hold.transaction = LocalTransaction::Failed;
        }
        Ok(())
    }
}

impl Leased {
    /// Everything has been answered, and it is still held: it is the client's to go on with.
    fn note_rest(&self) {
        if self.protocol.is_answered() {
            self.cancel.doing.rests(match self.protocol.status() {
                TxStatus::Idle => Phase::Keeps,
                TxStatus::Open => Phase::InTransaction,
                TxStatus::Failed => Phase::InFailedTransaction,
            });
        }
    }
}

impl Held<'_> {
    /// Whether the backend owes nothing, and the session cannot have left anything on it.
    #[inline]
    pub(super) fn is_clean(&self) -> bool {
        let is_outdated = self.leased.left.judged_at != self.view.catalog.changes();
        let facts = self.leased.facts(self.own, self.client.streaming > 0, is_outdated, false);
        settled(facts) == Settle::Release
    }

    /// Takes in what the replies told besides the bytes for the client. If the request is to be run once more, why.
    pub(super) fn on_news(&mut self) -> Option<Transient> {
        let Self { client, view, own, transaction, across, leased, under_way, .. } = self;
        let mut news = leased.protocol.take_heard();
        if let Some(failure) = news.failure {
            leased.left.failed = true;
            under_way.tally().failed = true;
            if let Some(across) = across {
                across.failed = true;
            }
            view.snapshot.metrics.server_errors.fetch_add(1, Ordering::Relaxed);
            if failure == Failure::Unread {
                leased.left.drop_unread();
            }
        }
        // The Sync that was sent is ours: the client's, still to come, is answered here.
        client.skipping |= news.skips_to_sync;
        if news.parameter_changed {
            leased.left.effects |= Effects::SETS;
            own.reading = leased.protocol.reading();
        }
        if news.needs_sync {
            let mut sync = Vec::new();
            message::sync(&mut sync);
            // A failed write shows as the end of the backend's replies.
            let _ = leased.send(&sync);
        }
        if news.begin_failed {
            **transaction = LocalTransaction::Failed;
        }
        if news.lost_unnamed {
            own.forget_unnamed();
            leased.statements.unnamed = UnnamedText::None;
        }
        own.note_statements(leased, &mut news);
        leased.forget_unparsed(&news.not_parsed);
        own.undo(news.undone, view);
        for id in &news.not_closed {
            leased.statements.put_back(*id);
        }
        news.transient
    }
}
