//! What a database's catalog says that the text does not: volatile functions, and relations, operators and
//! types that reach them.
//!
//! A snapshot, built from the rows of one query; somebody else runs it and decides when it is stale.
//! Names are kept without their schema, with the worst of all objects of that name.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use foldhash::fast::RandomState;

use super::{
    additions::Additions,
    bodies, programs,
    proof::{Builder, Proof, Use},
    verdict::Effects,
};

/// Names of parameters that functions set are kept up to so many; functions that set others may set anything.
const PARAMETERS_MAX: usize = 100;

/// Names of functions that are looked for in a text that is too long to be parsed; of more, one is taken to be in it.
const HIDDEN_MAX: usize = 100;

/// A snapshot of one database. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    epoch: u64,
    content: Arc<Content>,
    /// What has been added since it was read.
    additions: Additions,
}

/// What was read of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Content {
    loaded: bool,
    functions: HashMap<Box<str>, Function, RandomState>,
    relations: Names,
    operators: Names,
    types: Names,
    /// Parameters with a dot in their name that functions set.
    parameters: Vec<String>,
    /// What a write may set by a trigger.
    triggers: Effects,
    proof: Proof,
}

type Names = HashSet<Box<str>, RandomState>;

/// What is known of all functions of one name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Function(u8);

impl Function {
    const VOLATILE: u8 = 1;
    const USER: u8 = 2;
    const SETS: u8 = 4;
    const SETS_HIDDEN: u8 = 8;
    const SETS_LASTING: u8 = 16;
    const KEEPS: u8 = 32;
    const BUILT: u8 = 64;
    const OWN: u8 = 128;

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
    /// One row (`kind text`, `name text`) for each name; see [`Catalog::from_rows`]. Needs no rights beyond
    /// CONNECT. Written for PostgreSQL 12 and later.
    pub const QUERY: &str = concat!(
        include_str!("catalog.sql"),
        " UNION ALL ",
        include_str!("programs.sql"),
        " UNION ALL ",
        include_str!("proof_head.sql"),
        include_str!("audit/risky.txt"),
        include_str!("proof_middle.sql"),
        include_str!("audit/harmless.txt"),
        include_str!("proof_tail.sql"),
    );

    /// The part of it that concerns programs which set parameters. Whatever the settings of the session that runs it
    /// are, it means the same.
    pub const PROGRAMS: &str = include_str!("programs.sql");

    /// Nothing is known yet: whatever names a function or a relation is taken for a write.
    pub fn empty() -> Self {
        Self::default()
    }

    /// A snapshot from the rows of [`Catalog::QUERY`]. Verdicts are cached by `epoch`: give each snapshot,
    /// of whichever database, its own. Zero belongs to [`Catalog::empty`].
    pub fn from_rows<K, N>(epoch: u64, rows: impl IntoIterator<Item = (K, N)>) -> Self
    where
        K: AsRef<str>,
        N: AsRef<str>,
    {
        let mut catalog = Self { epoch, ..Self::default() };
        catalog.content_mut().loaded = true;
        let mut triggers = Vec::new();
        let mut builder = Builder::default();
        for (kind, name) in rows {
            match kind.as_ref() {
                "trigger" => triggers.push(name),
                kind if builder.add(kind, name.as_ref()) => {}
                kind => catalog.content_mut().add(kind, name.as_ref()),
            }
        }
        catalog.prove(builder);
        // They may call functions that set parameters.
        for program in triggers {
            catalog.content_mut().add_trigger(program.as_ref());
        }
        catalog
    }

    /// Nobody else has it while it is made.
    fn content_mut(&mut self) -> &mut Content {
        Arc::make_mut(&mut self.content)
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

    /// Judges the bodies of functions, and draws all conclusions.
    fn prove(&mut self, mut builder: Builder) {
        for (name, function) in &self.content.functions {
            let of_users = function.0 & (Function::USER | Function::OWN | Function::KEEPS) != 0;
            let is_built_volatile = function.0 & Function::BUILT != 0;
            builder.function(name, of_users, is_built_volatile);
        }
        let (known, functions) = builder.known();
        self.content_mut().proof = known;
        for body in &functions {
            match bodies::uses(self, body) {
                None => builder.doubt(b'f', &body.name),
                Some(uses) => uses.iter().for_each(|(name, used)| builder.uses(&body.name, name, *used)),
            }
        }
        self.content_mut().proof = builder.finish();
    }

    /// What is proven.
    pub(super) fn proof(&self) -> &Proof {
        &self.content.proof
    }

    /// Whether what goes by this name is proven to leave nothing.
    pub(super) fn proves(&self, name: &str, used: Use) -> bool {
        self.content.proof.proves(name, used)
            || self.additions.has(name) && self.content.proof.proves_added(name, used)
    }

    /// Whether there are functions that may keep state which DISCARD ALL does not end: in a language with variables of the
    /// session, or in a library that is not known.
    pub fn outlives_discard(&self) -> bool {
        self.content.proof.outlives_discard()
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
    fn add(&mut self, kind: &str, name: &str) {
        let mut words = kind.split(' ');
        match words.next() {
            Some("function") => {
                let flags = words.fold(0, |flags, word| {
                    flags
                        | match word {
                            "volatile" => Function::VOLATILE,
                            "user" => Function::USER,
                            "keeps" => Function::KEEPS,
                            "built" => Function::BUILT,
                            "own" => Function::OWN,
                            _ => 0,
                        }
                });
                self.functions.entry(name.into()).or_default().0 |= flags;
            }
            Some("relation") => drop(self.relations.insert(name.into())),
            Some("operator") => drop(self.operators.insert(name.into())),
            Some("type") => drop(self.types.insert(name.into())),
            Some("program") => self.add_program(name),
            _ => {}
        }
    }

    fn add_program(&mut self, program: &str) {
        let Some((name, source)) = split_name(program) else { return };
        let sets = programs::parameters(source);
        let mut hidden = sets.hidden;
        for parameter in sets.names {
            if self.parameters.contains(&parameter) {
                continue;
            }
            hidden |= self.parameters.len() >= PARAMETERS_MAX;
            if self.parameters.len() < PARAMETERS_MAX {
                self.parameters.push(parameter);
            }
        }
        let when = |holds: bool, flag: u8| if holds { flag } else { 0 };
        let flags =
            Function::SETS | when(hidden, Function::SETS_HIDDEN) | when(sets.lasting, Function::SETS_LASTING);
        self.functions.entry(name.into()).or_default().0 |= flags;
    }

    /// A trigger's function sets what it sets itself and what the functions do whose names stand in it.
    fn add_trigger(&mut self, program: &str) {
        let Some((own_name, source)) = split_name(program) else { return };
        let source = source.to_ascii_lowercase();
        let is_called = |name: &str| {
            name == own_name
                || memchr::memmem::find(source.as_bytes(), name.to_ascii_lowercase().as_bytes()).is_some()
        };
        for (_, function) in self
            .functions
            .iter()
            .filter(|(name, function)| function.0 & Function::SETS_LASTING != 0 && is_called(name))
        {
            self.triggers |= Effects::OPAQUE;
            if function.sets_hidden() {
                self.triggers |= Effects::OPAQUE_SETTINGS;
            }
        }
    }

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

/// A name as `quote_ident` writes it, a blank, and the rest.
pub(super) fn split_name(program: &str) -> Option<(String, &str)> {
    let Some(quoted) = program.strip_prefix('"') else {
        let (name, rest) = program.split_once(' ')?;
        return Some((name.to_owned(), rest));
    };
    let mut rest = quoted;
    let mut name = String::new();
    loop {
        let (part, after) = rest.split_once('"')?;
        name.push_str(part);
        match after.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some((name, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_tell_what_they_set() {
        let rows = [
            ("function volatile user", "plain"),
            ("program", "named BEGIN SET app.x = 1; END"),
            ("program", "\"a \"\"b\" BEGIN PERFORM set_config(x, y, false); END"),
        ];
        let catalog = Catalog::from_rows(1, rows);
        let named = catalog.function("named").expect("it was given");
        assert!(named.sets() && !named.sets_hidden());
        let hidden = catalog.function("a \"b").expect("it was given");
        assert!(hidden.sets() && hidden.sets_hidden());
        assert_eq!(catalog.parameters(), ["app.x"]);
        assert!(catalog.hides_settings_of(b"CALL \"A \"\"b\"()"));
        assert!(!catalog.hides_settings_of(b"CALL named()"));
    }

    #[test]
    fn triggers_set_what_they_call() {
        let triggers = |rows: &[(&str, &str)]| Catalog::from_rows(1, rows.iter().copied()).triggers();
        let stamps = ("trigger", "stamps BEGIN NEW.at := now(); RETURN NEW; END");
        assert_eq!(triggers(&[stamps, ("program", "other BEGIN SET app.x = 1; END")]), Effects::NONE);
        let body = "marks BEGIN SET app.x = 1; RETURN NEW; END";
        assert_eq!(triggers(&[("trigger", body), ("program", body)]), Effects::OPAQUE);
        let calls = ("trigger", "calls BEGIN PERFORM Helper(); RETURN NEW; END");
        let helper = ("program", "helper BEGIN PERFORM set_config(a, b, false); END");
        assert_eq!(triggers(&[calls, helper]), Effects::OPAQUE.with(Effects::OPAQUE_SETTINGS));
        let local = ("program", "helper BEGIN PERFORM set_config(a, b, true); END");
        assert_eq!(triggers(&[calls, local]), Effects::NONE);
        assert_eq!(Catalog::empty().triggers(), Effects::OPAQUE.with(Effects::UNSURE));
    }

    #[test]
    fn the_worst_of_a_name_counts() {
        let rows = [
            ("function", "f"),
            ("function volatile user keeps", "f"),
            ("program", "f set_config"),
            ("function user", "g"),
            ("relation", "v"),
        ];
        let catalog = Catalog::from_rows(7, rows);
        assert_eq!(catalog.epoch(), 7);
        let f = catalog.function("f").expect("it was given");
        assert!(f.is_volatile() && f.is_opaque() && f.sets() && f.keeps());
        let g = catalog.function("g").expect("it was given");
        assert!(!g.is_volatile() && !g.is_opaque() && !g.keeps());
        assert!(catalog.function("h").is_none());
        assert!(catalog.is_unsafe_relation("v"));
        assert!(Catalog::empty().is_empty());
    }
}
