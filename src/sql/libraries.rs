//! Which job libraries a database has, told by their tables.

use super::presets::PRESETS;

/// Tables of these names beyond so many are not looked at: an application for many tenants may have one in each schema.
const LIBRARIES_MAX: usize = 100;

/// A job library that was found in a database.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Library {
    /// The name of its preset.
    pub preset: &'static str,
    /// The schema that its tables are in.
    pub schema: String,
    /// The library owns this schema, and has nothing elsewhere.
    pub is_own: bool,
}

/// The question for the tables by which libraries are known: rows of the question for a catalog, which has it as a part.
pub(super) const QUESTION: &str = include_str!("libraries.sql");

/// Adds the library that a row (`schema table`) tells of, if any.
pub(super) fn add(libraries: &mut Vec<Library>, row: &str) {
    let Some((schema, table)) = row.rsplit_once(' ') else { return };
    for preset in PRESETS.iter().filter(|preset| preset.known_by == table) {
        let is_own = preset.schemas.contains(&schema);
        let is_there = preset.schemas.is_empty() || is_own;
        let library = Library { preset: preset.name, schema: schema.to_owned(), is_own };
        if is_there && libraries.len() < LIBRARIES_MAX && !libraries.contains(&library) {
            libraries.push(library);
            libraries.sort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_known_by_a_table_that_is_asked_for() {
        for preset in PRESETS {
            let is_asked = QUESTION.contains(&format!("'{}'", preset.known_by));
            assert!(is_asked && !preset.known_by.is_empty(), "{}", preset.name);
        }
    }

    #[test]
    fn a_library_is_told_by_its_table_and_schema() {
        let mut found = Vec::new();
        let rows = [
            "public oban_jobs",
            "pgboss version",
            "public version",
            "private oban_jobs",
            "my schema que_jobs",
            "",
        ];
        for row in rows.iter().chain(&rows) {
            add(&mut found, row);
        }
        let found: Vec<_> = found.iter().map(|library| (library.preset, library.schema.as_str())).collect();
        assert_eq!(
            found,
            [("oban", "private"), ("oban", "public"), ("pg_boss", "pgboss"), ("que", "my schema")]
        );
        let mut many = Vec::new();
        (0..1_000).for_each(|n| add(&mut many, &format!("tenant_{n} oban_jobs")));
        assert_eq!(many.len(), LIBRARIES_MAX);
    }
}
