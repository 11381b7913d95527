//! What is known of a backend's conversation: questions that change nothing but what they take.

use super::{Heard, Kind, Part, Protocol, Quiescent, Step, Whose, reading_of};
use crate::{
    sql::Reading,
    wire::{TxStatus, read::ErrorFields},
};

impl Protocol {
    /// The transaction status as of the last ReadyForQuery.
    pub const fn status(&self) -> TxStatus {
        self.status
    }

    /// Whether the server waits for CopyData.
    pub const fn copying_in(&self) -> bool {
        self.copying_in
    }

    /// Whether extended messages were sent whose Sync was not.
    pub fn is_open(&self) -> bool {
        self.parts.back().is_some_and(|part| part.kind == Kind::Open)
    }

    /// Whether the client's Sync is still to come for what was sent last.
    pub fn lacks_sync(&self) -> bool {
        self.parts.back().is_some_and(|part| matches!(part.kind, Kind::Open | Kind::Prepared))
    }

    /// Whether an open pipeline has failed: the server skips everything up to the Sync.
    pub fn is_skipping(&self) -> bool {
        self.parts.back().is_some_and(|part| part.kind == Kind::Open && part.failed)
    }

    /// Whether replies to messages of an open pipeline are outstanding.
    pub fn awaits_replies(&self) -> bool {
        self.parts.iter().any(|part| !part.steps.is_empty())
    }

    /// Whether the server has answered all that was sent of an open pipeline, and the client must go on: nobody expects
    /// a message.
    pub fn awaits_client(&self) -> bool {
        let is_answered = |part: &Part| part.kind == Kind::Open && !part.failed && part.steps.is_empty();
        self.parts.len() == 1 && self.parts.front().is_some_and(is_answered) && !self.copying_in
    }

    /// Whether a reply to the client is outstanding.
    pub fn owes_client(&self) -> bool {
        self.parts.iter().any(|part| matches!(part.whose, Whose::Client | Whose::Completion))
    }

    /// Whether everything that will be answered has been answered.
    pub fn is_answered(&self) -> bool {
        self.parts.is_empty() && self.body_left == 0 && self.tail.is_empty()
    }

    /// Proof that the backend may be given to somebody else.
    pub fn quiescent(&self) -> Option<Quiescent> {
        let quiet = self.is_answered() && self.status == TxStatus::Idle && !self.copying_in;
        quiet.then_some(Quiescent(()))
    }

    /// Takes what was heard since the last call.
    pub fn take_heard(&mut self) -> Heard {
        self.heard.take().map_or_else(Heard::default, |heard| *heard)
    }

    /// The first error since the last call that was not passed to the client.
    pub fn take_error(&mut self) -> Option<ErrorFields> {
        self.error.take().map(|error| *error)
    }

    /// The connection will be closed, and this is why, unless the server has said something before.
    pub fn end_with(&mut self, error: ErrorFields) {
        self.error.get_or_insert_with(|| Box::new(error));
    }

    /// Whether the next reply is to a Query of ours.
    pub fn is_answering_ours(&self) -> bool {
        self.parts.front().is_some_and(|part| part.whose == Whose::Ours)
    }

    /// Whether the server has reported since its login that it takes writes, or does not.
    pub fn has_reported_role(&self) -> bool {
        self.reported_role
    }

    /// The parameters that the server has reported, with their values.
    pub fn parameters(&self) -> &[(String, String)] {
        &self.parameters
    }

    /// How the server reads texts now.
    pub const fn reading(&self) -> Reading {
        self.reading
    }

    /// Takes over what the server reported at its start.
    pub fn set_parameters(&mut self, parameters: Vec<(String, String)>) {
        self.reading = reading_of(&parameters);
        self.parameters = parameters;
    }

    /// Whether the client has got a message in part: nothing of ours may come in between.
    pub const fn is_amid_message(&self) -> bool {
        self.body_left > 0 && self.body_passes
    }

    /// Whether all that has come was whole messages.
    pub const fn is_between_messages(&self) -> bool {
        self.body_left == 0 && self.tail.is_empty()
    }

    /// The rows that commands of the client have returned or changed since this was last asked.
    pub const fn take_rows(&mut self) -> u64 {
        std::mem::replace(&mut self.rows, 0)
    }

    /// Whether there is anything for [`Protocol::take_heard`] to give.
    pub const fn has_heard(&self) -> bool {
        self.heard.is_some()
    }

    /// Replies to leading messages that were not sent, when nothing else must be waited for first.
    pub fn insert_leading(&mut self, out: &mut Vec<u8>) {
        if self.parts.len() != 1 {
            return;
        }
        let Some(part) = self.parts.front_mut().filter(|part| !part.steps.is_empty()) else { return };
        let all_ours = part.steps.iter().all(|step| matches!(step, Step::Insert(..)));
        if all_ours && part.kind == Kind::Open && self.body_left == 0 {
            for step in part.steps.drain(..) {
                if let Step::Insert(bytes, _) = step {
                    out.extend_from_slice(&bytes);
                }
            }
        }
    }

    pub(super) fn heard(&mut self) -> &mut Heard {
        self.heard.get_or_insert_default()
    }
}
