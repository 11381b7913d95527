//! What a session may have left on its backend since it got it. It is nothing again once the session has no backend,
//! whichever way it lost it, and so can neither reach the next one nor be taken for its state.

use crate::{
    backend::{Settings, protocol::Discarded},
    catalog::Defining,
    route::Demand,
    sql::{Effects, HiddenSearch},
};

/// State that the statements since the last checkout have, or may have, left.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent facts, not states of one thing")]
pub(super) struct Left {
    /// The statements' effects.
    pub(super) effects: Effects,
    /// The same without the one text, of the request under way or since the last Sync, that could not be read: what is
    /// left should the server be unable to read it, too.
    read: Effects,
    /// One text could not be read.
    has_unread: bool,
    noted: Option<Box<Noted>>,
    /// The server has answered the request under way with an error.
    pub(super) failed: bool,
    /// The backend lacked a statement that it should have had: a function or DO block has let go of them.
    pub(super) statements_unknown: bool,
    /// State that the client's commands have discarded since the request began, or its pipeline.
    pub(super) discarded: Discarded,
    /// A portal may be of a DISCARD ALL or DEALLOCATE ALL.
    pub(super) may_discard: bool,
    /// How often definitions had changed when the first of the statements was judged.
    pub(super) judged_at: u64,
}

/// Notes that few sessions have to make.
#[derive(Debug, Default)]
pub(super) struct Noted {
    /// Texts that call what the catalog snapshot does not know.
    pub(super) unsure: Vec<u8>,
    /// Objects were made that may be temporary, of which the server has not been asked yet.
    pub(super) has_new_objects: bool,
    /// The names of what was only added.
    pub(super) added: Vec<String>,
    /// The search in a text that is sent on as it comes.
    pub(super) search: Option<HiddenSearch>,
    /// Startup values that hold again after a reset in a pipeline, once that has ended.
    pub(super) restored: Settings,
    /// Held while a text that changes definitions, and ends the transaction itself, may be running.
    pub(super) defining: Option<Defining>,
}

impl Left {
    /// The notes, to add to them.
    pub(super) fn noted(&mut self) -> &mut Noted {
        self.noted.get_or_insert_default()
    }

    /// No text that changes definitions runs any more.
    pub(super) fn has_defined(&mut self) {
        if let Some(noted) = &mut self.noted {
            noted.defining = None;
        }
    }

    /// Whether objects were made that may be temporary, of which the server has not been asked yet.
    pub(super) fn has_new_objects(&self) -> bool {
        self.noted.as_ref().is_some_and(|noted| noted.has_new_objects)
    }

    /// The texts that call what is not known.
    pub(super) fn unsure(&self) -> &[u8] {
        self.noted.as_ref().map(|noted| noted.unsure.as_slice()).unwrap_or_default()
    }

    /// All is known that will be of what was left so far, when definitions have changed so often.
    pub(super) fn begin_anew(&mut self, changes: u64) {
        self.failed = false;
        // Of a pipeline that has failed.
        self.take_restored();
        // What was not proven has been asked for, and another session gets the backend only after a reset.
        self.judged_at = changes;
    }

    /// The server has told whether there are temporary objects, as far as it does.
    pub(super) fn forget_new_objects(&mut self) {
        if let Some(noted) = &mut self.noted {
            noted.has_new_objects = false;
        }
    }

    /// Forgets the texts that call what is not known: what is known of them now is all that will be.
    pub(super) fn forget_unsure(&mut self) {
        if let Some(noted) = &mut self.noted {
            noted.unsure = Vec::new();
        }
    }

    /// The search in a text that is sent on as it comes, if there is one.
    pub(super) fn search(&mut self) -> Option<&mut HiddenSearch> {
        self.noted.as_mut()?.search.as_mut()
    }

    /// Startup values are to hold again when the pipeline has ended, besides others that are.
    pub(super) fn restore(&mut self, values: &Settings) {
        let restored = &mut self.noted().restored;
        let both = restored.iter().chain(values.iter());
        *restored = Settings::new(both.map(|(name, value)| (name.to_owned(), value.to_vec())));
    }

    /// Keeps settings that are set behind the reset: no startup value is restored in their place.
    pub(super) fn keep_set(&mut self, names: &[String]) {
        if let Some(noted) = &mut self.noted {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            noted.restored = noted.restored.without(&names);
        }
    }

    /// Whether there are such values.
    pub(super) fn restores(&self) -> bool {
        self.noted.as_ref().is_some_and(|noted| !noted.restored.is_empty())
    }

    /// The startup values that are to hold again, for the last time.
    pub(super) fn take_restored(&mut self) -> Settings {
        self.noted.as_mut().map(|noted| std::mem::take(&mut noted.restored)).unwrap_or_default()
    }

    /// Whether it has none of the notes that few requests make.
    pub(super) const fn has_nothing_noted(&self) -> bool {
        self.noted.is_none()
    }

    /// The names of what was only added, for the last time.
    pub(super) fn take_added(&mut self) -> Vec<String> {
        self.noted.as_mut().map(|noted| std::mem::take(&mut noted.added)).unwrap_or_default()
    }

    /// A request begins; `was_open` if it goes on with a pipeline. Of two texts that could not be read, in one request
    /// or before one Sync, an error does not tell which one is meant.
    pub(super) fn begin(&mut self, demand: &Demand, was_open: bool) {
        self.failed &= was_open;
        if !was_open {
            self.discarded = Discarded::default();
        }
        let earlier = was_open && self.has_unread;
        if !earlier {
            self.read = self.effects;
        }
        self.read |= demand.read_effects;
        self.has_unread = demand.unread.saturating_add(u16::from(earlier)) == 1;
    }

    /// A statement that could be read has this effect, which its verdict does not tell.
    pub(super) fn add_read(&mut self, effect: Effects) {
        self.read |= effect;
    }

    /// The text that could not be read has done nothing.
    pub(super) fn drop_unread(&mut self) {
        if std::mem::take(&mut self.has_unread) {
            // Whatever is thought of the error: another session gets the backend only after a reset.
            self.effects = self.read.with(if self.effects.has(Effects::UNPROVEN) {
                Effects::UNPROVEN
            } else {
                Effects::NONE
            });
        }
    }
}
