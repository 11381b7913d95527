//! What a database's catalog says that the text does not: volatile functions, and relations, operators and
//! types that reach them.
//!
//! A snapshot, built from the rows of one query (`rows`); somebody else runs it and decides when it is stale.
//! Names are kept without their schema, with the worst of all objects of that name.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use foldhash::fast::RandomState;

use super::{
    additions::Additions, libraries::Library, proof::Proof, tables::Tables, used::Use, verdict::Effects,
};

/// Names of functions that are looked for in a text that is too long to be parsed; of more, one is taken to be in it.
const HIDDEN_MAX: usize = 100;

/// A snapshot of one database. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    pub(super) epoch: u64,
    pub(super) content: Arc<Content>,
    /// What has been added since it was read.
    pub(super) additions: Additions,
}

/// Everything that was read of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) loaded: bool,
    pub(super) functions: HashMap<Box<str>, Function, RandomState>,
    pub(super) relations: Names,
    pub(super) operators: Names,
    pub(super) types: Names,
    /// Parameters with a dot in their name that functions set.
    pub(super) parameters: Vec<String>,
    /// What a write may set by a trigger.
    pub(super) triggers: Effects,
    /// The job libraries that it has, in order.
    pub(super) libraries: Vec<Library>,
    pub(super) proof: Proof,
}

pub(super) type Names = HashSet<Box<str>, RandomState>;

/// What is known of all functions of one name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Function(pub(super) u8);

impl Function {
    pub(super) const VOLATILE: u8 = 1;
    pub(super) const USER: u8 = 2;
    pub(super) const SETS: u8 = 4;
    pub(super) const SETS_HIDDEN: u8 = 8;
    pub(super) const SETS_LASTING: u8 = 16;
    pub(super) const KEEPS: u8 = 32;
    pub(super) const BUILT: u8 = 64;
    pub(super) const OWN: u8 = 128;

    /// One of them may write or answer differently each time.
    pub(super) fn is_volatile(self) -> bool {
        self.0 & Self::VOLATILE != 0
    }

    /// One of the volatile ones does not come with PostgreSQL: it may do anything.
    pub(super) fn is_opaque(self) -> bool {
        self.0 & (Self::VOLATILE | Self::USER) == Self::VOLATILE | Self::USER
    }

    /// One of them neither comes with PostgreSQL nor with an extension.
    pub(super) fn is_own(self) -> bool {
        self.0 & Self::OWN != 0
    }

    /// The source of one of them changes settings.
    pub(super) fn sets(self) -> bool {
        self.0 & Self::SETS != 0
    }

    /// One of them may set parameters whose names stand nowhere.
    pub(super) fn sets_hidden(self) -> bool {
        self.0 & Self::SETS_HIDDEN != 0
    }

    /// One of them may keep state in its library, which nobody can ask for.
    pub(super) fn keeps(self) -> bool {
        self.0 & Self::KEEPS != 0
    }
}

impl Catalog {
    /// Nothing is known yet: whatever names a function or a relation is taken for a write.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The same, with tables and sequences of these names that have been added since and run no code (see
    /// `Additions`). Verdicts of texts that may name one of them are cached by `epoch`.
    #[must_use]
    pub fn with_additions(&self, epoch: u64, names: impl IntoIterator<Item = Box<str>>) -> Self {
        Self { additions: Additions::new(epoch, names), ..self.clone() }
    }

    /// Whether all of these names are those of additions.
    pub fn has_added(&self, names: &[String]) -> bool {
        names.iter().all(|name| self.additions.has(name))
    }

    /// The proof of the database.
    pub(super) fn proof(&self) -> &Proof {
        &self.content.proof
    }

    /// Whether what goes by this name is proven to leave nothing.
    pub(super) fn proves(&self, name: &str, used: Use) -> bool {
        self.content.proof.proves(name, used)
            || self.additions.has(name) && self.content.proof.proves_added(name, used)
    }

    /// The tables that a statement reaches by this name, if it is proven.
    pub(super) fn tables(&self, name: &str, used: Use) -> Tables {
        self.content.proof.tables(name, used)
    }

    /// Whether there are functions that may keep state which DISCARD ALL does not end: in a language with variables of the
    /// session, or in a library that is not known. As long as nothing is known of them, there may be.
    pub fn outlives_discard(&self) -> bool {
        !self.content.loaded || self.content.proof.outlives_discard()
    }

    /// Whether making a value of the type with this id is proven to leave nothing: for parameters whose type a client
    /// gives by its id.
    pub fn proves_parameter_type(&self, id: u32) -> bool {
        self.content.proof.proves_type_id(id)
    }

    /// The version of this snapshot, by which verdicts of texts are cached that name nothing added.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// By which the verdict of this text is cached.
    pub fn epoch_of(&self, text: &[u8]) -> u64 {
        if self.may_name_added(text) { self.additions.epoch() } else { self.epoch }
    }

    /// The epoch by which verdicts of all texts are cached, if it is one.
    pub fn common_epoch(&self) -> Option<u64> {
        self.additions.is_empty().then_some(self.epoch)
    }

    /// Whether the text may name what has been added since the snapshot was read, which a standby may not have yet.
    pub(super) fn may_name_added(&self, text: &[u8]) -> bool {
        self.additions.may_be_named_in(text)
    }

    /// Whether two snapshots differ in nothing but their epoch.
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.content == other.content
    }

    /// Whether two snapshots differ in nothing but which relations and types there are, of the same proofs: what was
    /// proven by one of them is by the other, or does not exist there.
    pub fn differs_in_plain_relations(&self, other: &Self) -> bool {
        let (one, other) = (&*self.content, &*other.content);
        one.loaded
            && other.loaded
            && one.functions == other.functions
            && one.operators == other.operators
            && one.types == other.types
            && one.parameters == other.parameters
            && one.triggers == other.triggers
            && one.proof.differs_in_proven_relations(&other.proof)
    }

    /// Whether nothing has been loaded.
    pub fn is_empty(&self) -> bool {
        !self.content.loaded
    }

    /// What a write may set by a trigger, of whichever table: cascades, views and partitions reach others.
    pub(super) fn triggers(&self) -> Effects {
        // Nothing is known yet.
        if self.content.loaded { self.content.triggers } else { Effects::OPAQUE.with(Effects::UNSURE) }
    }

    /// The parameters with a dot in their name that functions set: the server does not list them.
    pub fn parameters(&self) -> &[String] {
        &self.content.parameters
    }

    /// Whether a trigger, or a function that the text names, perhaps within a longer name, may set parameters whose
    /// names stand nowhere.
    pub fn hides_settings_of(&self, text: &[u8]) -> bool {
        self.content.hides_settings_of(text)
    }

    /// `None`: there is no function of this name.
    pub(super) fn function(&self, name: &str) -> Option<Function> {
        self.content.functions.get(name).copied()
    }

    /// Whether a standby cannot answer for a relation of this name.
    pub(super) fn is_unsafe_relation(&self, name: &str) -> bool {
        self.content.relations.contains(name)
    }

    /// Whether an operator of this name reaches a volatile function.
    pub(super) fn is_unsafe_operator(&self, name: &str) -> bool {
        self.content.operators.contains(name)
    }

    /// Whether making a value of a type of this name reaches a volatile function.
    pub(super) fn is_unsafe_type(&self, name: &str) -> bool {
        self.content.types.contains(name)
    }
}

impl Content {
    fn hides_settings_of(&self, text: &[u8]) -> bool {
        if self.triggers.has(Effects::OPAQUE_SETTINGS) {
            return true;
        }
        let hidden = self.functions.iter().filter(|(_, function)| function.sets_hidden());
        let hidden: Vec<_> = hidden.take(HIDDEN_MAX + 1).collect();
        if hidden.len() > HIDDEN_MAX {
            return true;
        }
        let text = text.to_ascii_lowercase();
        hidden.into_iter().any(|(name, _)| {
            memchr::memmem::find(&text, name.to_ascii_lowercase().replace('"', "\"\"").as_bytes()).is_some()
        })
    }
}
