//! What a backend answers: whose each reply is, and what it says of the conversation.
//!
//! Replies are walked header by header; bodies are skipped by length and only ReadyForQuery, ParameterStatus and
//! ErrorResponse are looked into, as a rule.

use std::collections::VecDeque;

use super::{
    Awaits, Discarded, Failure, Kind, Opening, Part, Protocol, Ready, Repeat, Step, Transient, Whose, heard,
    naming, reading_of, shapes,
};
use crate::{
    backend::{outgoing::Outgoing, statements::Shape},
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
            let end = self.pass_plain(chunk, at)?;
            out.pass(chunk, at, end);
            at = end;
            let rest = &chunk[at..];
            let Some(header) = Header::peek(rest)? else {
                self.tail.extend_from_slice(rest);
                break;
            };
            let here = rest.len().min(header.len);
            let limit = self.looks_into(header.tag);
            if here < header.len && header.len <= limit {
                self.tail.extend_from_slice(rest);
                break;
            }
            let passes = self.on_message(header.tag, &rest[HEADER_BYTES..here], chunk, out);
            if header.tag == b'S' && self.has_too_many_parameters() {
                return Err(BadFrame::Flood { tag: header.tag });
            }
            if passes {
                out.pass(chunk, at, at + here);
                if header.tag == b'C' {
                    self.rows += rows_of(&rest[HEADER_BYTES..here]);
                }
            }
            self.body_left = header.len - here;
            self.body_passes = passes;
            at += here;
        }
        Ok(())
    }

    /// Goes over the whole messages from `at` on that are replies for the client of which nothing has to be known, as most of
    /// what comes is, to where they end.
    fn pass_plain(&mut self, chunk: &[u8], mut at: usize) -> Result<usize, BadFrame> {
        let is_plain = |part: &&mut Part| part.whose == Whose::Client && part.steps.is_empty();
        let Some(part) = self.parts.front_mut().filter(is_plain) else { return Ok(at) };
        if !self.last_words.is_empty() {
            return Ok(at);
        }
        let begin = at;
        while let Some(header) = Header::peek(&chunk[at..])?
            && let Some(message) = chunk.get(at..at + header.len)
        {
            match header.tag {
                b'D' | b'T' | b'2' | b'n' | b'd' => {}
                b'1' => part.parses = part.parses.saturating_sub(1),
                b'C' if !self.watches => self.rows += rows_of(&message[HEADER_BYTES..]),
                _ => break,
            }
            at += header.len;
        }
        if at > begin && part.repeat != Repeat::No {
            part.repeat = Repeat::Begun;
        }
        Ok(at)
    }

    /// Up to which length a message is looked into.
    fn looks_into(&self, tag: u8) -> usize {
        let (looks_into, limit) = match tag {
            b'Z' | b'S' | b'E' | b'C' => (true, INSPECTED_BYTES),
            b'A' => (self.heard_elsewhere.is_some(), INSPECTED_BYTES),
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
            self.heard().repeats = Some(steps);
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
            self.heard().begin_failed = true;
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
            self.heard().parameter_changed = true;
        }
        shown
    }

    fn has_too_many_parameters(&self) -> bool {
        let bytes: usize = self.parameters.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.parameters.len() > PARAMETERS_MAX || bytes > PARAMETERS_BYTES_MAX
    }

    /// The end of the backend's connection is not the end of the client's, nor the answer to anything.
    fn on_fatal(&mut self, body: &[u8], out: &mut Outgoing) {
        let fields = ErrorFields::parse(body);
        let part = self.parts.front_mut().filter(|part| part.repeat == Repeat::Begun);
        if let Some(part) = part.filter(|_| Transient::of(fields.code.as_bytes()).is_some()) {
            out.clear();
            part.repeat = Repeat::Yes;
        }
        self.error.get_or_insert_with(|| Box::new(fields));
    }

    /// An error of the server's own, of a request that its session runs once more.
    fn on_transient(&mut self, reason: Transient, steps: VecDeque<Step>, out: &mut Outgoing) {
        // Of this chunk nothing has been sent.
        out.clear();
        (self.kept, self.last_words) = (Vec::new(), Vec::new());
        let heard = self.heard();
        heard.transient = Some(reason);
        heard.undo(steps);
    }

    fn on_error(&mut self, body: &[u8], chunk: &[u8], out: &mut Outgoing) -> bool {
        if is_fatal(body) {
            self.on_fatal(body, out);
            return false;
        }
        self.copying_in = false;
        let Some(part) = self.parts.front_mut() else {
            self.error.get_or_insert_with(|| Box::new(ErrorFields::parse(body)));
            return false;
        };
        part.failed = true;
        let mut steps = std::mem::take(&mut part.steps);
        self.shape = Shape::default();
        let repeat = std::mem::replace(&mut part.repeat, Repeat::No);
        let repeats = repeat != Repeat::No && part.kind != Kind::Open && !part.begins;
        if repeats && let Some(reason) = Transient::of_error(body) {
            part.withholds_ready = true;
            self.on_transient(reason, steps, out);
            return false;
        }
        out.insert_some(chunk, &std::mem::take(&mut self.last_words));
        let is_stale = heard::is_stale_plan(body);
        let may_repeat = is_stale && part.repeats_at > 0 && part.repeats_at == steps.len();
        if may_repeat && matches!(part.kind, Kind::Synced | Kind::Prepared) {
            self.to_repeat = Some(steps);
            self.kept = Vec::new();
            self.heard().has_stale_plan = true;
            return false;
        }
        let opening_failed = matches!(steps.front(), Some(Step::Open(_)));
        if opening_failed && part.opening == Opening::Begins {
            part.opening = Opening::Failed;
        }
        if !opening_failed && steps.iter().skip(1).any(|step| *step == Step::Simple) {
            // A message before the Query has failed, and the server skips the Query too.
            part.kind = Kind::Open;
        }
        out.insert_some(chunk, &std::mem::take(&mut self.kept));
        let whose = part.whose;
        let lost_unnamed = std::mem::take(&mut part.parses) > 0
            || steps.iter().any(|step| *step == Step::Pass(Awaits::Parse));
        let ours = matches!(whose, Whose::Ours | Whose::Completion);
        let heard = self.heard.get_or_insert_default();
        heard.has_stale_plan |= is_stale;
        heard.lacks_statement |= naming::may_name(body) && heard::lacks_statement(body);
        heard.skips_to_sync |= part.kind == Kind::Prepared;
        heard.needs_sync |= opening_failed && part.kind == Kind::Simple;
        heard.lost_unnamed |= lost_unnamed && whose == Whose::Client;
        let is_refusal = matches!(steps.front(), Some(Step::Refuse { .. })) && !ours;
        let refusal = if is_refusal { steps.pop_front() } else { None };
        heard.undo(steps);
        if let Some(Step::Refuse { error, drops_unread }) = refusal {
            heard.failure = Some(if drops_unread { Failure::Unread } else { Failure::Other });
            out.insert(chunk, &error);
            return false;
        }
        if ours {
            self.error.get_or_insert_with(|| Box::new(ErrorFields::parse(body)));
        } else {
            heard.failure = Some(if heard::grammar_refuses(body) { Failure::Unread } else { Failure::Other });
        }
        if !ours && naming::may_name(body) {
            insert_naming(body, chunk, out);
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
                let heard = self.heard();
                heard.discarded = heard.discarded.and(discarded);
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

/// Puts in an error that may name a statement of ours, which the client knows by another name.
fn insert_naming(body: &[u8], chunk: &[u8], out: &mut Outgoing) {
    let mut error = Vec::with_capacity(HEADER_BYTES + body.len());
    message::raw(&mut error, b'E', body);
    out.insert_naming(chunk, &error);
}

/// The rows that a command tag tells of: the number at its end.
fn rows_of(body: &[u8]) -> u64 {
    let tag = body.strip_suffix(b"\0").unwrap_or_default();
    let digits = tag.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (_, number) = tag.split_at(tag.len() - digits);
    number.iter().fold(0_u64, |rows, digit| rows.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
}

/// Whether an ErrorResponse ends its connection.
fn is_fatal(body: &[u8]) -> bool {
    let has = |field: &[u8]| memchr::memmem::find(body, field).is_some();
    has(b"\0VFATAL\0") || has(b"\0VPANIC\0")
}
