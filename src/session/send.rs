//! Held a request to the leased backend, in one write with its opening: a deferred BEGIN, missing statements. The
//! session's settings have been confirmed before ([`crate::backend::handover`]).

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

use super::{
    Ended, Session, Stop,
    aliases::write_aliases,
    classify::begin_search,
    held::Held,
    hold::Leased,
    kinds::CHANGES_SETTINGS,
    prepared::Repeat,
    request::{End, Request},
    rewrite::{Rewriting, Rewritten},
    thread_buffer::ThreadBuffer,
    transaction::LocalTransaction,
};
use crate::{
    backend::{Protocol, Settings, statements::UnnamedText},
    route::Demand,
    sql::{Control, Effects, Reason, reset_names, setting_names},
    types::localize_parses,
    wire::{TxStatus, message},
};

/// Effects that may discard something that the session has on its backend: the tags of commands tell whether they have.
const DISCARDING: Effects = Effects::DISCARDS
    .with(Effects::DISCARDS_SEQUENCES)
    .with(Effects::RESETS)
    .with(Effects::UNPROVEN)
    .with(Effects::OPAQUE_SETTINGS);

/// Effects of which something is noted as soon as they are sent.
const SELDOM: Effects = CHANGES_SETTINGS
    .with(Effects::DDL)
    .with(Effects::ADDS)
    .with(Effects::SETS_UNLISTED)
    .with(Effects::UNSURE);

/// How a request was written.
#[derive(Debug)]
enum Written {
    /// All of its replies pass, so many of them to Parse messages.
    Passing { parses: usize },
    /// In other words.
    Anew(Rewritten),
}

impl Session {
    /// Sends the request. A refusal means that nothing was sent.
    pub(super) fn send(&mut self, request: Request, demand: &Demand) -> Result<(), Stop> {
        if self.view.snapshot.routes.jobs_elsewhere {
            self.held().note_work(request, demand);
        }
        self.held().send(request, demand)
    }
}

impl Held<'_> {
    fn send(&mut self, request: Request, demand: &Demand) -> Result<(), Stop> {
        let effects = demand.verdict.effects;
        if self.leased.protocol.is_skipping() {
            self.send_skipped(request);
            return Ok(());
        }
        let aliases = self.missing_aliases(request, &demand.verdict)?;
        let mut draft = ThreadBuffer::take();
        let opening = self.write_opening(&mut draft);
        write_aliases(&aliases, &mut draft);
        let whole = request;
        let (written, request) = self.write_request(request, effects, &mut draft)?;
        self.under_way.tally().has_begun =
            matches!(&written, Written::Anew(rewritten) if rewritten.only_begins());
        if let Some(types) = &self.leased.types {
            localize_parses(types.map(), &mut draft);
        }
        let risk = self.take_risk(&written, request, &draft);
        self.note_standing(request, demand);
        self.note_effects(request, demand);
        self.note_changes(demand);
        self.note_opening(opening, aliases.len());
        let completion = self.completion(request, effects);
        let goes_on = self.is_amid_pipeline();
        let sent_before = self.under_way.sent.as_ref().filter(|_| goes_on).map_or(0, Vec::len);
        let kept_bytes = sent_before + if risk.is_some() { 2 * request.len } else { request.len };
        let may_repeat = self.may_repeat(whole, demand)
            && self.client.kept.grow_sent_to(kept_bytes, self.view.snapshot.limits.request_buffer_total);
        let leased = &mut *self.leased;
        leased.cancel.doing.runs(demand.verdict.class);
        note_request(&mut leased.protocol, request, written);
        if effects.has(DISCARDING) {
            leased.protocol.watch_commands(true);
        }
        if let Some(remaining) = risk.filter(|_| completion.is_none()) {
            leased.protocol.may_parse_anew(remaining);
        }
        if completion.is_some() {
            leased.protocol.withhold_ready();
            self.under_way.tally().restore = completion.map(String::into_boxed_str);
        } else if self.under_way.parts.go_on() {
            leased.protocol.withhold_ready();
        }
        let sent = leased.send(if draft.is_empty() { &self.client.inbox[..request.len] } else { &draft });
        leased.protocol.insert_leading(&mut self.client.outbox);
        if may_repeat {
            leased.protocol.may_repeat(demand.verdict.control != Control::None);
        }
        let bytes = self.client.take_request(request.len);
        self.under_way.is_repeated = false;
        if may_repeat {
            self.under_way.keep_sent(bytes, goes_on);
        } else {
            self.under_way.sent = None;
        }
        if let Err(error) = sent {
            // The relay finds the connection closed and tells the client.
            tracing::debug!(%error, "a request could not be sent");
        }
        Ok(())
    }

    /// The server skips everything up to the Sync: it is sent as it came, and nothing is noted.
    fn send_skipped(&mut self, request: Request) {
        let bytes = self.client.take_request(request.len);
        self.under_way.forget_sent(&mut self.client.kept);
        self.client.streaming = request.streaming;
        if request.is_extended() {
            self.leased.protocol.sent_extended(VecDeque::new(), request.is_synced());
        }
        // A failed write shows as the end of the backend's replies.
        let _ = self.leased.send(&bytes);
    }

    /// Where the session stands as the request begins.
    fn note_standing(&mut self, request: Request, demand: &Demand) {
        let was_open = self.is_amid_pipeline();
        self.under_way.was_in_transaction =
            self.status() != TxStatus::Idle || (was_open && self.under_way.was_in_transaction);
        let ending = self.judge().ending(request, demand);
        self.under_way.ending = if was_open { self.under_way.ending.and(ending) } else { ending };
        self.leased.left.begin(demand, was_open);
        self.note_sequences(demand);
    }

    /// Notes what the request, which will be sent, does to the session.
    fn note_effects(&mut self, request: Request, demand: &Demand) {
        let verdict = &demand.verdict;
        // What is discarded is told when it is.
        let discards = Effects::DISCARDS.with(Effects::DISCARDS_SEQUENCES);
        self.leased.left.effects |= verdict.effects.without(discards);
        self.leased.left.may_discard |= verdict.effects.has(Effects::DISCARDS);
        if verdict.effects.has(SELDOM) {
            self.note_seldom(request, demand);
        }
        if self.leased.left.restores() {
            let texts = self.judge().texts(request);
            let set: Vec<String> = texts.iter().flat_map(|text| setting_names(text)).collect();
            self.leased.left.keep_set(&set);
        }
        self.client.streaming = request.streaming;
        if verdict.reason == Reason::TooLong && request.streaming > 0 {
            let beginning = self.client.inbox.get(..request.len).unwrap_or_default();
            begin_search(self.view, self.leased, beginning);
        }
        if request.end == End::Query {
            // It ends the unnamed statement.
            self.own.forget_unnamed();
            self.leased.statements.unnamed = UnnamedText::None;
        }
    }

    /// Notes effects that few requests have.
    fn note_seldom(&mut self, request: Request, demand: &Demand) {
        let verdict = &demand.verdict;
        let goes_on = demand.statements > 1 || request.end == End::Open;
        if goes_on
            && verdict.effects.has(CHANGES_SETTINGS)
            && self.may_change_reading(request, verdict.effects)
        {
            // What follows before the server has said so may be read in another way than it was judged.
            self.leased.left.effects |= Effects::UNPROVEN;
        }
        if verdict.effects.has(Effects::DDL) {
            // It may be committed long before it has been answered.
            if verdict.control == Control::Other {
                self.leased.left.noted().defining = Some(self.view.catalog.define());
            }
            self.view.snapshot.catalogs.changed(&self.view.catalog);
        } else if verdict.effects.has(Effects::ADDS) {
            self.note_added(request);
        }
        if verdict.effects.has(Effects::SETS_UNLISTED) {
            self.note_custom_settings(request);
        }
        if verdict.effects.has(Effects::UNSURE) {
            self.note_unsure(request);
        }
    }

    /// Whether a request may change how texts are read.
    fn may_change_reading(&self, request: Request, effects: Effects) -> bool {
        let decides = |name: &str| {
            ["standard_conforming_strings", "client_encoding", "names"]
                .iter()
                .any(|known| name.eq_ignore_ascii_case(known))
        };
        let mut is_bound = false;
        self.judge().for_each_bound_value(request, |value| {
            is_bound |= std::str::from_utf8(value).is_ok_and(decides);
        });
        is_bound
            || effects.has(Effects::OPAQUE.with(Effects::OPAQUE_SETTINGS).with(Effects::RESETS))
            || self
                .judge()
                .texts(request)
                .iter()
                .flat_map(|text| setting_names(text))
                .any(|name| decides(&name))
    }

    /// A session that asks for `currval` or `lastval` keeps the backend on which it may have called `nextval`.
    fn note_sequences(&mut self, demand: &Demand) {
        let verdict = &demand.verdict;
        let asks = verdict.effects.has(Effects::ASKS_SEQUENCES);
        if asks {
            self.own.statements.get_or_insert_default().asks_sequences = true;
            self.who.identity.asks_sequences.store(true, Ordering::Relaxed);
        }
        let discards = Effects::DISCARDS.with(Effects::DISCARDS_SEQUENCES);
        let only_discards = verdict.effects.has(discards) && demand.statements == 1;
        if only_discards || !self.own.calls_sequences(verdict) {
            return;
        }
        // A pin by what was called before ends with what is discarded in the same transaction; this call's does not.
        let may_end_pin = verdict.effects.has(discards) || self.leased.left.effects.has(discards);
        if self.leased.has_lasting_pin() && !may_end_pin {
            return;
        }
        let left = &mut self.leased.left;
        left.effects |= Effects::CALLS_SEQUENCES;
        if demand.statements > demand.unread {
            left.add_read(Effects::CALLS_SEQUENCES);
        }
    }

    /// Writes what opens the client's transaction, if it was told that it has begun: BEGIN, and what followed it. Each is
    /// sent as Parse, Bind and Execute without a Sync. If one of them fails, whatever the reason, the server skips the
    /// request behind it, so it cannot run outside of its transaction. Gives how many statements there are.
    fn write_opening(&mut self, draft: &mut Vec<u8>) -> usize {
        let LocalTransaction::Deferred(deferred) = &*self.transaction else { return 0 };
        for text in &deferred.texts {
            message::parse(draft, b"".as_slice(), text, &[0, 0]);
            message::bind_plain(draft);
            message::execute(draft);
        }
        // It was the client's or another's.
        self.leased.statements.unnamed = UnnamedText::None;
        deferred.texts.len()
    }

    fn note_opening(&mut self, statements: usize, aliases: usize) {
        self.own.is_new_backend = false;
        if statements + aliases > 0 {
            self.leased.protocol.sends_opening(statements, aliases);
        }
        if statements > 1 {
            self.leased.left.effects |= Effects::LOCAL;
        }
        if statements > 0 {
            *self.transaction = LocalTransaction::No;
        }
    }

    /// Writes the request behind its opening, unless it can be sent as it came and nothing comes before it.
    /// Gives the part of it that is sent.
    fn write_request(
        &mut self,
        request: Request,
        effects: Effects,
        draft: &mut Vec<u8>,
    ) -> Result<(Written, Request), Stop> {
        let Self { client, view, own, transaction, leased, .. } = self;
        let is_unchanged = leased.passes_unchanged(request);
        let mut rewriting = Rewriting { view, own, transaction, leased };
        if is_unchanged {
            let parses = rewriting.remember_unchanged(&client.inbox, request)?;
            if !draft.is_empty() {
                draft.extend_from_slice(&client.inbox[..request.len]);
            }
            own.set_stepping(false);
            return Ok((Written::Passing { parses }, request));
        }
        let messages = &client.inbox[..request.len];
        let before = draft.len();
        if let Some(name) = request.bound_name()
            && rewriting.write_bound(messages, name, effects, draft)
        {
            if cfg!(debug_assertions) {
                rewriting.check_bound(messages, request, effects, &draft[before..]);
            }
            own.set_stepping(false);
            return Ok((Written::Passing { parses: 0 }, request));
        }
        write_anew(rewriting, &client.inbox, request, effects, draft)
    }

    /// Keeps what is sent again should a stale plan be in the way of the request, which is not part of anything else, and
    /// if there is room for it.
    fn take_risk(&mut self, written: &Written, request: Request, draft: &[u8]) -> Option<usize> {
        let Written::Anew(Rewritten { risk: Some((risk, remaining)), .. }) = written else { return None };
        let repeat = Repeat {
            statement: Arc::clone(&risk.statement),
            tail: draft.get(risk.at..)?.into(),
            prepares: request.only_prepares(),
        };
        let is_complete = request.is_synced() || repeat.prepares;
        if !self.client.kept.grow_sent_to(repeat.tail.len(), self.view.snapshot.limits.request_buffer_total) {
            return None;
        }
        self.own.statements.as_mut().filter(|_| is_complete)?.repeat = Some(Box::new(repeat));
        Some(*remaining)
    }

    /// After RESET and DISCARD ALL the session's own startup values hold, not the server's: said once they have
    /// succeeded, before the client is told that they have. What the same text sets afterwards stays.
    fn restore_startup(&self, request: Request, effects: Effects) -> Option<Settings> {
        let is_read = effects.has(Effects::RESETS);
        let may_reset = is_read || effects.has(Effects::OPAQUE_SETTINGS);
        if !may_reset || self.who.startup.is_empty() || request.streaming > 0 {
            return None;
        }
        let mut texts = self.judge().texts(request);
        // A text that was not read, and means the same whatever the encoding is and `standard_conforming_strings`.
        texts.retain(|text| is_read || text.is_ascii() && !text.contains(&b'\\'));
        let names: Vec<String> = texts.iter().flat_map(|text| reset_names(text)).collect();
        if names.is_empty() {
            return None;
        }
        let set: Vec<String> = texts.iter().flat_map(|text| setting_names(text)).collect();
        let all = names.iter().any(|name| name == "all");
        let restored = self.who.startup.iter().filter(|(name, _)| {
            let is_in = |list: &[String]| list.iter().any(|other| other == name);
            // Who returns to its own user returns to its startup role, too.
            let implied = *name == "role" && names.iter().any(|other| other == "session_authorization");
            let is_user = matches!(*name, "role" | "session_authorization");
            is_in(&names) || implied || (all && !is_user && !is_in(&set))
        });
        Some(Settings::new(restored.map(|(name, value)| (name.to_owned(), value.to_owned()))))
    }

    /// The text that completes the request, if it succeeds. Where more of a pipeline follows, it is said behind its Sync,
    /// if the pipeline is a transaction of its own.
    fn completion(&mut self, request: Request, effects: Effects) -> Option<String> {
        let restored = self.restore_startup(request, effects);
        let is_part = request.end == End::Open;
        let left = &mut self.leased.left;
        if restored.is_none() && (is_part || !left.restores()) {
            return None;
        }
        if !(is_part && self.under_way.was_in_transaction) {
            left.restore(&restored.unwrap_or_default());
        }
        if is_part { None } else { Settings::default().change_to(&left.take_restored()) }
    }
}

impl Session {
    /// Completes a request that resets settings, and tells the client that it is done.
    pub(crate) async fn restore(&mut self, sql: &str) -> Result<(), Ended> {
        let is_sent = self.held_if_any().is_some_and(|held| held.leased.send_completion(sql));
        if !is_sent {
            let status = self.status();
            message::ready(&mut self.client.outbox, status);
            return self.flush_now();
        }
        self.relay().await?;
        match self.held_if_any().and_then(|held| held.leased.protocol.take_error()) {
            // What is in force is not what the client believes.
            Some(error) => Err(Ended::ByServer(Box::new(error))),
            None => Ok(()),
        }
    }
}

impl Leased {
    /// Sends what completes a request that resets settings, if that has done so: whether it has.
    fn send_completion(&mut self, sql: &str) -> bool {
        if self.left.failed || !self.left.discarded.settings {
            return false;
        }
        let mut query = Vec::new();
        message::query(&mut query, sql.as_bytes());
        self.protocol.sent_completion();
        self.statements.unnamed = UnnamedText::None;
        // A failed write shows as the end of the backend's replies.
        let _ = self.send(&query);
        true
    }
}

/// Writes the request in other words. Gives the part of it that is sent.
fn write_anew(
    mut rewriting: Rewriting<'_>,
    inbox: &[u8],
    request: Request,
    effects: Effects,
    draft: &mut Vec<u8>,
) -> Result<(Written, Request), Stop> {
    let was_open = rewriting.leased.protocol.is_open();
    let rewritten = rewriting.rewrite(inbox, request, effects, draft)?;
    rewriting.own.set_stepping(rewritten.cut.is_some());
    let request = rewritten.cut.map_or(request, Request::beginning);
    if request.end == End::Open && request.streaming == 0 {
        // What follows a Flush may depend on the replies, such as COPY data.
        let prepares = !was_open && request.only_prepares();
        message::raw(draft, if prepares { b'S' } else { b'H' }, &[]);
    }
    Ok((Written::Anew(rewritten), request))
}

/// Tells the conversation what was sent.
fn note_request(protocol: &mut Protocol, request: Request, written: Written) {
    match written {
        _ if !request.is_extended() => protocol.sent_simple(),
        Written::Passing { parses } => {
            protocol.sent_extended(VecDeque::new(), request.is_synced());
            protocol.expects_parses(parses);
        }
        Written::Anew(rewritten) if !protocol.is_open() && request.only_prepares() => {
            protocol.sent_prepared(rewritten.steps);
        }
        Written::Anew(Rewritten { steps, parses, .. }) => {
            protocol.sent_extended(steps, request.is_synced());
            protocol.expects_parses(parses);
        }
    }
}
