//! A catalog snapshot from the rows of the question for it.

use std::sync::Arc;

use super::{
    bodies,
    catalog::{Catalog, Content, Function},
    functions,
    libraries::{self, Library},
    names::split_name,
    programs,
    proof::Builder,
    verdict::Effects,
};

/// Names of parameters that functions set are kept up to so many; functions that set others may set anything.
const PARAMETERS_MAX: usize = 100;

impl Catalog {
    /// One row (`kind text`, `name text`) for each name; see [`Catalog::from_rows`]. Needs no rights beyond
    /// CONNECT. Written for PostgreSQL 12 and later.
    pub const QUERY: &str = concat!(
        include_str!("catalog.sql"),
        " UNION ALL ",
        include_str!("programs.sql"),
        " UNION ALL ",
        include_str!("libraries.sql"),
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

    /// The part of it that tells which job libraries there are.
    pub const LIBRARIES: &str = libraries::QUESTION;

    /// The job libraries whose tables are there, in order.
    pub fn libraries(&self) -> &[Library] {
        &self.content.libraries
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
        let wrappers = builder.wrappers(|letter, name| self.content.changes(letter, name));
        let content = self.content_mut();
        for (letter, name) in wrappers {
            content.add_wrapper(letter, name);
        }
        content.proof = builder.finish();
    }
}

impl Content {
    /// Whether what goes by this name may change something, as far as its declaration tells.
    fn changes(&self, letter: u8, name: &str) -> bool {
        match letter {
            b'f' if functions::known(name).is_some() => functions::changes(name),
            b'f' => self.functions.get(name).is_some_and(|function| function.is_volatile()),
            b'o' => self.operators.contains(name),
            _ => false,
        }
    }

    /// Notes that what goes by this name reaches something that may change something, by the body of a function.
    fn add_wrapper(&mut self, letter: u8, name: Box<str>) {
        match letter {
            b'f' => self.functions.entry(name).or_default().0 |= Function::VOLATILE | Function::USER,
            b'r' => drop(self.relations.insert(name)),
            b'o' => drop(self.operators.insert(name)),
            b't' => drop(self.types.insert(name)),
            _ => {}
        }
    }

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
            Some("library") => libraries::add(&mut self.libraries, name),
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
