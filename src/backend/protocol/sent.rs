//! What is sent to a backend, noted so that its replies are known.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use super::{Awaits, Kind, Opening, Part, Protocol, Ready, Repeat, Step, Whose};

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
    /// among them: then they are given back as [`Heard::repeats`](super::Heard::repeats), and the client is told nothing.
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

    pub(super) fn push(&mut self, whose: Whose, kind: Kind) {
        let (steps, opening) = match whose {
            Whose::Client if !self.opening.is_empty() => {
                let begins = std::mem::take(&mut self.begins);
                (std::mem::take(&mut self.opening), if begins { Opening::Begins } else { Opening::Plain })
            }
            _ => (VecDeque::new(), Opening::Plain),
        };
        let (withholds_ready, failed, begins, repeat) = (false, false, false, Repeat::No);
        let (parses, repeats_at) = (0, 0);
        self.parts.push_back(Part {
            whose,
            kind,
            steps,
            parses,
            repeats_at,
            withholds_ready,
            repeat,
            begins,
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
            self.heard().undo(undone);
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
