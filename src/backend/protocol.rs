//! Where a backend's conversation stands: what was sent and not yet answered, whether it is in a transaction or
//! a COPY, and which of its replies are for the client. Pure: bytes in, decisions out.
//!
//! Replies are walked header by header; bodies are skipped by length and only ReadyForQuery, ParameterStatus
//! and ErrorResponse are looked into, as a rule. A question of ours is a part of its own whose replies are swallowed; what
//! opens a client's transaction, and a client's extended request that we changed, carry steps that say what becomes of the
//! reply to each of their messages.

mod known;
pub mod naming;
mod news;
mod repeat;
mod shapes;
mod steps;

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

pub use news::{Discarded, Failure, News, Transient};
use repeat::Repeat;
pub use steps::{Awaits, Step, Undo};

use super::{outgoing::Outgoing, statements::Shape};
use crate::{
    sql::Reading,
    wire::{
        TxStatus,
        frame::{BadFrame, HEADER_BYTES, Header},
        message,
        read::{Body, ErrorFields},
    },
};

/// An ErrorResponse longer than this is passed on without being looked into.
const INSPECTED_BYTES: usize = 64 * 1024;

/// Parameters that a server may report, and the bytes that their names and values may take. PostgreSQL reports 15.
const PARAMETERS_MAX: usize = 100;
const PARAMETERS_BYTES_MAX: usize = 256 * 1024;
/// Longer than any ParameterDescription, of 65,535 parameters, or RowDescription, of 1,664 columns.
const DESCRIBED_BYTES: usize = 320 * 1024;

/// What was sent up to a Sync or a Query, and how its replies are treated.
#[derive(Debug)]
struct Part {
    whose: Whose,
    kind: Kind,
    /// Empty when every reply goes to the client as it is.
    steps: VecDeque<Step>,
    /// Parse messages without a step of their own that are not answered yet.
    parses: usize,
    /// If a stale plan fails the message after which so many steps remain, itself among them, nothing has been done,
    /// and the rest is sent again. 0 for no such message.
    repeats_at: usize,
    /// ReadyForQuery is not for the client yet.
    withholds_ready: bool,
    /// If nothing but an error of the server's own comes, the client is told nothing: its session repeats it.
    repeat: Repeat,
    failed: bool,
    opening: Opening,
}

/// What of the client's was sent in front of its messages, of which it had been told already that it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opening {
    /// Nothing that began a transaction.
    Plain,
    /// A BEGIN.
    Begins,
    /// A BEGIN, and it or something else of the opening has failed: the server skips what follows.
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// Nothing of the replies is for the client.
    Ours,
    /// Of the replies changed parameters are for the client: its own statement would have changed them, had it been
    /// sent to a server of its own. The ReadyForQuery is that of the client's statement, whose own is swallowed.
    Completion,
    Client,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A Query or FunctionCall: answered by one ReadyForQuery.
    Simple,
    /// Extended messages and their Sync.
    Synced,
    /// Extended messages whose Sync has not been sent.
    Open,
    /// Extended messages that only prepare, with a Sync of ours in place of the client's Flush: its ReadyForQuery
    /// is swallowed.
    Prepared,
}

/// Proof that a backend has answered everything, is in no transaction and no COPY. Only
/// [`Protocol::quiescent`] makes one; a lease is given back with it.
#[derive(Debug)]
pub struct Quiescent(());

/// The state of one backend's conversation.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent facts, not states of one thing")]
pub struct Protocol {
    parts: VecDeque<Part>,
    status: TxStatus,
    copying_in: bool,
    /// Bytes of the current message's body still to come, and whether they are for the client.
    body_left: usize,
    body_passes: bool,
    /// An incomplete header, or an incomplete message that will be looked into.
    tail: Vec<u8>,
    news: Option<Box<News>>,
    /// What is sent in front of the client's next messages, and whether a BEGIN is among it.
    opening: VecDeque<Step>,
    begins: bool,
    /// The first error in a reply that is not the client's, outside any reply, or the end of the connection.
    error: Option<Box<ErrorFields>>,
    /// What the server has reported of its parameters (ParameterStatus), as it stands now.
    parameters: Vec<(String, String)>,
    /// Whether it has reported since its login that it takes writes, or does not.
    reported_role: bool,
    /// What of them decides how texts are read.
    reading: Reading,
    /// Channels whose notifications the client gets by another way.
    heard_elsewhere: Option<Arc<HashSet<Box<str>>>>,
    /// What becomes of the client's next ReadyForQuery outside of a transaction.
    ready: Ready,
    /// Commands of the client may discard what the session has on the server.
    watches: bool,
    /// What a Describe was answered with so far.
    shape: Shape,
    /// Its ParameterDescription, as long as a stale plan may follow it.
    kept: Vec<u8>,
    /// The steps of a request that failed by a stale plan, up to its ReadyForQuery.
    to_repeat: Option<VecDeque<Step>>,
    /// A warning that the connection is about to end, and what came with it, of a request that may be sent again:
    /// the client is told if it does not end.
    last_words: Vec<u8>,
}

/// What becomes of the ReadyForQuery that tells the client that it is in no transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ready {
    Passes,
    /// The session has something to say before it.
    Waits,
    /// It has come, and is the session's to write.
    Held,
}

impl Default for Protocol {
    fn default() -> Self {
        Self {
            parts: VecDeque::new(),
            status: TxStatus::Idle,
            copying_in: false,
            body_left: 0,
            body_passes: true,
            tail: Vec::new(),
            news: None,
            opening: VecDeque::new(),
            begins: false,
            error: None,
            parameters: Vec::new(),
            reported_role: false,
            reading: Reading::default(),
            heard_elsewhere: None,
            ready: Ready::Passes,
            watches: false,
            shape: Shape::default(),
            kept: Vec::new(),
            to_repeat: None,
            last_words: Vec::new(),
        }
    }
}

// === what is sent ===

impl Protocol {
    /// A Query of ours was sent.
    pub fn sent_ours(&mut self) {
        self.push(Whose::Ours, Kind::Simple);
    }

    /// A Query of ours was sent that completes the client's: the parameters that it changes are reported.
    pub fn sent_completion(&mut self) {
        self.push(Whose::Completion, Kind::Simple);
    }

    /// Extended messages of the client that only prepare were sent, with a Sync of ours.
    pub fn sent_prepared(&mut self, steps: VecDeque<Step>) {
        self.push(Whose::Client, Kind::Prepared);
        self.parts.back_mut().expect("just pushed").steps.extend(steps);
    }

    /// Messages without a Sync will be sent in front of the client's, and the server skips those if one of these fails:
    /// BEGIN and what followed it, each as Parse, Bind and Execute, then Parse messages.
    pub fn sends_opening(&mut self, statements: usize, parses: usize) {
        let statement = [Awaits::Parse, Awaits::Bind, Awaits::Execute].map(Step::Open);
        for _ in 0..statements {
            self.opening.extend(statement.iter().cloned());
        }
        self.opening.extend((0..parses).map(|_| Step::Open(Awaits::Parse)));
        self.begins = statements > 0;
    }

    /// The client's Query or FunctionCall was sent.
    ///
    /// After extended messages without a Sync (asyncpg: Parse, Describe, Flush, then a Query) its ReadyForQuery is
    /// the end of them all, unless they have failed: then the server skips the Query too.
    pub fn sent_simple(&mut self) {
        if !self.is_open() {
            self.push(Whose::Client, Kind::Simple);
            let part = self.parts.back_mut().expect("just pushed");
            if !part.steps.is_empty() {
                part.steps.push_back(Step::Simple);
            }
        } else if !self.is_skipping() {
            let part = self.parts.back_mut().expect("an open conversation has a part");
            part.steps.push_back(Step::Simple);
            part.kind = Kind::Simple;
        }
    }

    /// Extended messages of the client were sent, with their Sync or without.
    pub fn sent_extended(&mut self, steps: VecDeque<Step>, synced: bool) {
        if self.is_open() {
            let part = self.parts.back_mut().expect("an open conversation has a part");
            // After an error the server skips everything up to the Sync.
            if !part.failed {
                part.steps.extend(steps);
            }
        } else {
            self.push(Whose::Client, Kind::Open);
            let part = self.parts.back_mut().expect("just pushed");
            if part.steps.is_empty() {
                part.steps = steps;
            } else {
                part.steps.extend(steps);
            }
        }
        if synced {
            self.parts.back_mut().expect("there is an open part").kind = Kind::Synced;
        }
    }

    /// The client's next ReadyForQuery outside of a transaction is kept back, for [`Protocol::take_held_ready`].
    pub fn hold_ready(&mut self) {
        self.ready = Ready::Waits;
    }

    /// From now on the client's commands are looked at: whether they discard anything. `false` ends that.
    pub fn watch_commands(&mut self, watches: bool) {
        self.watches = watches;
    }

    /// A stale plan may fail the message of the extended messages sent last after which so many steps remain, itself
    /// among them: then they are given back as [`News::repeats`], and the client is told nothing.
    pub fn may_parse_anew(&mut self, remaining: usize) {
        if let Some(part) = self.parts.back_mut() {
            part.repeats_at = remaining;
        }
    }

    /// Whether a ReadyForQuery was kept back, which the client must now be sent.
    pub fn take_held_ready(&mut self) -> bool {
        std::mem::replace(&mut self.ready, Ready::Passes) == Ready::Held
    }

    /// Whether a ReadyForQuery is kept back.
    pub const fn holds_ready(&self) -> bool {
        matches!(self.ready, Ready::Held)
    }

    /// Notifications on these channels are not the client's: it gets them by another way.
    pub fn set_heard_elsewhere(&mut self, channels: Option<Arc<HashSet<Box<str>>>>) {
        self.heard_elsewhere = channels;
    }

    /// The client's CopyDone or CopyFail was sent.
    pub fn sent_copy_end(&mut self) {
        self.copying_in = false;
    }

    fn push(&mut self, whose: Whose, kind: Kind) {
        let (steps, opening) = match whose {
            Whose::Client if !self.opening.is_empty() => {
                let begins = std::mem::take(&mut self.begins);
                (std::mem::take(&mut self.opening), if begins { Opening::Begins } else { Opening::Plain })
            }
            _ => (VecDeque::new(), Opening::Plain),
        };
        let (withholds_ready, failed, repeat) = (false, false, Repeat::No);
        let (parses, repeats_at) = (0, 0);
        self.parts.push_back(Part {
            whose,
            kind,
            steps,
            parses,
            repeats_at,
            withholds_ready,
            repeat,
            failed,
            opening,
        });
    }

    /// Nothing more will be answered: what was not, has not taken place.
    pub fn give_up(&mut self) {
        let mut undone = VecDeque::new();
        for part in self.parts.iter_mut().filter(|part| part.whose == Whose::Client) {
            undone.append(&mut part.steps);
        }
        if !undone.is_empty() {
            self.news().undo(undone);
        }
    }

    /// The client is not told that what was sent last is done, because something of ours completes it.
    pub fn withhold_ready(&mut self) {
        if let Some(part) = self.parts.back_mut() {
            part.withholds_ready = true;
        }
    }

    /// The extended messages sent last have so many Parse messages and no steps.
    pub fn expects_parses(&mut self, count: usize) {
        if let Some(part) = self.parts.back_mut() {
            part.parses = count;
        }
    }
}

// === what is received ===

impl Protocol {
    /// Takes bytes from the server and tells in `out` what of them is for the client. `out` refers to `chunk`.
    pub fn receive(&mut self, chunk: &[u8], out: &mut Outgoing) -> Result<(), BadFrame> {
        if self.tail.is_empty() {
            self.walk(chunk, out)?;
        } else {
            let mut whole = std::mem::take(&mut self.tail);
            whole.extend_from_slice(chunk);
            self.walk(&whole, out)?;
            out.detach(&whole);
        }
        self.end_chunk();
        Ok(())
    }

    fn walk(&mut self, chunk: &[u8], out: &mut Outgoing) -> Result<(), BadFrame> {
        let mut at = 0;
        loop {
            if self.body_left > 0 && at < chunk.len() {
                let end = chunk.len().min(at + self.body_left);
                if self.body_passes {
                    out.pass(chunk, at, end);
                }
                self.body_left -= end - at;
                at = end;
            }
            if self.body_left > 0 {
                break;
            }
            self.insert_due(chunk, out);
            let rest = &chunk[at..];
            let Some(header) = Header::peek(rest)? else {
                self.tail.extend_from_slice(rest);
                break;
            };
            let limit = self.looks_into(header.tag);
            let inspected = limit > 0 && header.len <= limit;
            if inspected && rest.len() < header.len {
                self.tail.extend_from_slice(rest);
                break;
            }
            let here = rest.len().min(header.len);
            let body = &rest[HEADER_BYTES..here];
            let passes = self.on_message(header.tag, body, chunk, out);
            if header.tag == b'S' && self.has_too_many_parameters() {
                return Err(BadFrame::Flood { tag: header.tag });
            }
            if passes {
                out.pass(chunk, at, at + here);
            }
            self.body_left = header.len - here;
            self.body_passes = passes;
            at += here;
        }
        Ok(())
    }

    /// Up to which length a message is looked into.
    fn looks_into(&self, tag: u8) -> usize {
        let (looks_into, limit) = match tag {
            b'Z' | b'S' | b'E' => (true, INSPECTED_BYTES),
            b'A' => (self.heard_elsewhere.is_some(), INSPECTED_BYTES),
            b'C' => (self.watches, INSPECTED_BYTES),
            b'N' => (self.may_be_repeated(), INSPECTED_BYTES),
            b'T' | b't' => (self.is_describing(), DESCRIBED_BYTES),
            _ => return 0,
        };
        if looks_into { limit } else { 0 }
    }

    /// One message has begun; tells whether it is for the client. `body` is whole only for inspected tags.
    fn on_message(&mut self, tag: u8, body: &[u8], chunk: &[u8], out: &mut Outgoing) -> bool {
        if tag != b'E' {
            self.let_go_last_words(chunk, out);
        }
        match tag {
            b'Z' => self.on_ready(body, chunk, out),
            b'S' => self.on_parameter(body) && self.tells(),
            b'E' => self.on_error(body, chunk, out),
            b'N' => {
                let is_for_client = self.parts.front().is_none_or(|part| part.whose == Whose::Client);
                is_for_client && !self.keep_last_words(body, chunk, out) && self.tells()
            }
            // A notification belongs to the session's LISTEN, whatever is being answered.
            b'A' => !self.is_heard_elsewhere(body) && self.tells(),
            b'G' | b'W' => self.on_copy_in(),
            _ => self.on_reply(tag, body, chunk, out),
        }
    }

    fn on_ready(&mut self, body: &[u8], chunk: &[u8], out: &mut Outgoing) -> bool {
        if let Some(status) = body.first().copied().and_then(TxStatus::from_byte) {
            self.status = status;
        }
        self.copying_in = false;
        let Some(part) = self.parts.pop_front() else { return false };
        if let Some(steps) = self.to_repeat.take() {
            self.news().repeats = Some(steps);
            return false;
        }
        // Only messages that were never sent can be left; their replies come before ReadyForQuery.
        for step in part.steps {
            if let Step::Insert(bytes, _) = step {
                out.insert(chunk, &bytes);
            }
        }
        // The client was told that it is in a transaction: it is in a failed one.
        let begin_failed = part.opening == Opening::Failed && self.status == TxStatus::Idle;
        if begin_failed {
            self.news().begin_failed = true;
        }
        let passes = match part.whose {
            // Its parameters are told before the client is told that it may go on.
            Whose::Completion => true,
            Whose::Client => part.kind != Kind::Prepared && !part.withholds_ready,
            Whose::Ours => false,
        };
        if passes && begin_failed {
            let mut ready = Vec::new();
            message::ready(&mut ready, TxStatus::Failed);
            out.insert(chunk, &ready);
            return false;
        }
        if passes && self.ready == Ready::Waits && self.status == TxStatus::Idle {
            // Waits => Held
            self.ready = Ready::Held;
            return false;
        }
        passes
    }

    fn is_heard_elsewhere(&self, body: &[u8]) -> bool {
        let Some(channels) = &self.heard_elsewhere else { return false };
        let mut body = Body::new(body, "NotificationResponse");
        let channel = body.int32().and_then(|_| body.cstring());
        channel.is_ok_and(|channel| channels.contains(&*String::from_utf8_lossy(channel)))
    }

    fn on_parameter(&mut self, body: &[u8]) -> bool {
        let mut body = Body::new(body, "ParameterStatus");
        let (Ok(name), Ok(value)) = (body.cstring(), body.cstring()) else { return false };
        let (name, value) = (String::from_utf8_lossy(name), String::from_utf8_lossy(value).into_owned());
        let for_client = self.parts.front().is_some_and(|part| part.whose != Whose::Ours);
        // Which server is a standby is none of the session's business.
        self.reported_role |= matches!(&*name, "in_hot_standby" | "default_transaction_read_only");
        let shown = for_client && name != "in_hot_standby";
        match self.parameters.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = value,
            None => self.parameters.push((name.into_owned(), value)),
        }
        self.reading = reading_of(&self.parameters);
        if shown {
            self.news().parameter_changed = true;
        }
        shown
    }

    fn has_too_many_parameters(&self) -> bool {
        let bytes: usize = self.parameters.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.parameters.len() > PARAMETERS_MAX || bytes > PARAMETERS_BYTES_MAX
    }

    fn on_error(&mut self, body: &[u8], chunk: &[u8], out: &mut Outgoing) -> bool {
        let has = |field: &[u8]| memchr::memmem::find(body, field).is_some();
        if has(b"\0VFATAL\0") || has(b"\0VPANIC\0") {
            // The end of the backend's connection is not the end of the client's, nor the answer to anything.
            let fields = ErrorFields::parse(body);
            let part = self.parts.front_mut().filter(|part| part.repeat == Repeat::Begun);
            if let Some(part) = part.filter(|_| Transient::of(fields.code.as_bytes()).is_some()) {
                out.clear();
                part.repeat = Repeat::Yes;
            }
            self.error.get_or_insert_with(|| Box::new(fields));
            return false;
        }
        self.copying_in = false;
        let last_words = std::mem::take(&mut self.last_words);
        let Some(part) = self.parts.front_mut() else {
            self.error.get_or_insert_with(|| Box::new(ErrorFields::parse(body)));
            return false;
        };
        part.failed = true;
        let mut steps = std::mem::take(&mut part.steps);
        self.shape = Shape::default();
        let repeat = std::mem::replace(&mut part.repeat, Repeat::No);
        if repeat != Repeat::No
            && part.kind != Kind::Open
            && let Some(reason) = Transient::of_error(body)
        {
            // Of this chunk nothing has been sent.
            out.clear();
            self.kept = Vec::new();
            part.withholds_ready = true;
            let news = self.news();
            news.transient = Some(reason);
            news.undo(steps);
            return false;
        }
        out.insert_some(chunk, &last_words);
        let is_stale = news::is_stale_plan(body);
        let may_repeat = is_stale && part.repeats_at > 0 && part.repeats_at == steps.len();
        if may_repeat && matches!(part.kind, Kind::Synced | Kind::Prepared) {
            self.to_repeat = Some(steps);
            self.kept = Vec::new();
            self.news().has_stale_plan = true;
            return false;
        }
        let opening_failed = matches!(steps.front(), Some(Step::Open(_)));
        if opening_failed && part.opening == Opening::Begins {
            part.opening = Opening::Failed;
        }
        let needs_sync = opening_failed && part.kind == Kind::Simple;
        if !opening_failed && steps.iter().skip(1).any(|step| *step == Step::Simple) {
            // A message before the Query has failed, and the server skips the Query too.
            part.kind = Kind::Open;
        }
        out.insert_some(chunk, &std::mem::take(&mut self.kept));
        let whose = part.whose;
        let lost_unnamed = std::mem::take(&mut part.parses) > 0
            || steps.iter().any(|step| *step == Step::Pass(Awaits::Parse));
        let ours = matches!(whose, Whose::Ours | Whose::Completion);
        let skips_to_sync = part.kind == Kind::Prepared;
        let news = self.news.get_or_insert_default();
        news.has_stale_plan |= is_stale;
        news.lacks_statement |= naming::may_name(body) && news::lacks_statement(body);
        news.skips_to_sync |= skips_to_sync;
        news.needs_sync |= needs_sync;
        news.lost_unnamed |= lost_unnamed && whose == Whose::Client;
        let is_refusal = matches!(steps.front(), Some(Step::Refuse { .. })) && !ours;
        let refusal = if is_refusal { steps.pop_front() } else { None };
        news.undo(steps);
        if let Some(Step::Refuse { error, drops_unread }) = refusal {
            news.failure = Some(if drops_unread { Failure::Unread } else { Failure::Other });
            out.insert(chunk, &error);
            return false;
        }
        if ours {
            self.error.get_or_insert_with(|| Box::new(ErrorFields::parse(body)));
        } else {
            news.failure = Some(if news::grammar_refuses(body) { Failure::Unread } else { Failure::Other });
        }
        if !ours && naming::may_name(body) {
            let mut error = Vec::with_capacity(HEADER_BYTES + body.len());
            message::raw(&mut error, b'E', body);
            out.insert_naming(chunk, &error);
            return false;
        }
        !ours
    }

    fn on_copy_in(&mut self) -> bool {
        let Some(part) = self.parts.front_mut() else { return false };
        self.copying_in = true;
        // During COPY the server ignores Sync, so the one that was sent will not be answered.
        if part.kind == Kind::Synced {
            part.kind = Kind::Open;
            if part.steps.is_empty() {
                // The COPY is still to be answered, and it is the last one that can be.
                part.steps.push_back(Step::Pass(Awaits::Execute));
            }
        }
        part.whose == Whose::Client
    }

    fn on_reply(&mut self, tag: u8, body: &[u8], chunk: &[u8], out: &mut Outgoing) -> bool {
        let Some(part) = self.parts.front_mut() else { return false };
        if part.whose != Whose::Client {
            return false;
        }
        if tag == b'1' {
            part.parses = part.parses.saturating_sub(1);
        }
        let mut passes = !part.steps.front().is_some_and(Step::swallows);
        if passes && part.repeat != Repeat::No {
            // The name of a statement that was told to exist cannot be taken back.
            let is_named = matches!(part.steps.front(), Some(Step::PassParsed(..)));
            part.repeat = if is_named { Repeat::No } else { Repeat::Begun };
        }
        let may_repeat = part.repeats_at > 0 && part.repeats_at == part.steps.len();
        if part.steps.front().is_some_and(|step| step.ended_by(tag)) {
            let step = part.steps.pop_front();
            self.on_described(step, tag, body);
            out.insert_some(chunk, &std::mem::take(&mut self.kept));
        } else if tag == b't' && self.is_describing() {
            self.shape = shapes::of_parameters(body);
            if may_repeat && passes {
                message::raw(&mut self.kept, b't', body);
                passes = false;
            }
        }
        if tag == b'C' && self.watches {
            let discarded = Discarded::by(body);
            if discarded.is_any() {
                let news = self.news();
                news.discarded = news.discarded.and(discarded);
            }
        }
        passes
    }

    /// Puts in the replies of messages that were not sent and whose turn has come.
    fn insert_due(&mut self, chunk: &[u8], out: &mut Outgoing) {
        let Some(part) = self.parts.front_mut() else { return };
        while matches!(part.steps.front(), Some(Step::Insert(..))) {
            if let Some(Step::Insert(bytes, _)) = part.steps.pop_front() {
                part.repeat = Repeat::No;
                out.insert(chunk, &bytes);
            }
        }
    }
}

/// How a server reads texts that has reported these parameters.
pub fn reading_of(parameters: &[(String, String)]) -> Reading {
    let value = |name: &str| {
        let known = parameters.iter().find(|(known, _)| known == name);
        known.map_or("", |(_, value)| value.as_str())
    };
    Reading::new(value("client_encoding"), value("server_encoding"), value("standard_conforming_strings"))
}

#[cfg(test)]
mod tests;
