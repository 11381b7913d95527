//! Session settings as a value: what a session has set, what a backend has applied, and the SQL that turns one
//! into the other.

use std::{fmt::Write as _, hash::BuildHasher as _};

use foldhash::fast::FixedState;

/// Names that must be set last, and in this order: after them the session may lack the right to set others.
const LAST: [&str; 2] = ["session_authorization", "role"];

/// Settings that have nothing to do with what a text means.
const PARSE_NEUTRAL: [&str; 8] = [
    "application_name",
    "client_min_messages",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "jit",
    "lock_timeout",
    "statement_timeout",
    "work_mem",
];

/// Settings that differ from what the server gives at connect, by lower-case name, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    entries: Vec<(Box<str>, Box<str>)>,
    hash: u64,
    parse_hash: u64,
    /// Asked before every request.
    has_old_strings: bool,
    is_serializable: bool,
}

impl Settings {
    /// From pairs in the order they were given: the last one of a name wins.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut entries: Vec<(Box<str>, Box<str>)> = Vec::new();
        for (name, value) in pairs {
            let name = name.to_ascii_lowercase();
            match entries.binary_search_by(|(known, _)| known.as_ref().cmp(&name)) {
                Ok(at) => entries[at].1 = value.into(),
                Err(at) => entries.insert(at, (name.into(), value.into())),
            }
        }
        let hash = if entries.is_empty() { 0 } else { FixedState::default().hash_one(&entries) };
        let parsing: Vec<_> =
            entries.iter().filter(|(name, _)| !PARSE_NEUTRAL.contains(&name.as_ref())).collect();
        let parse_hash = if parsing.is_empty() { 0 } else { FixedState::default().hash_one(&parsing) };
        let mut settings = Self { entries, hash, parse_hash, has_old_strings: false, is_serializable: false };
        settings.has_old_strings =
            settings.get("standard_conforming_strings").is_some_and(|value| value != "on");
        settings.is_serializable = settings.get("default_transaction_isolation") == Some("serializable");
        settings
    }

    /// A number that differs, as good as surely, for different settings.
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// As [`Settings::hash`], without those that cannot change what a text means: the literals of a prepared
    /// statement are read by the time zone, date style, search path and so on in force when it is parsed.
    pub const fn parse_hash(&self) -> u64 {
        self.parse_hash
    }

    /// Whether string literals are read in the old way, with backslash escapes.
    pub const fn has_old_strings(&self) -> bool {
        self.has_old_strings
    }

    /// Whether transactions are serializable unless they say otherwise: not possible on a standby.
    pub const fn is_serializable(&self) -> bool {
        self.is_serializable
    }

    /// What their names and values take.
    pub fn bytes(&self) -> usize {
        self.entries.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// Whether they take more than `limits.settings_bytes_per_client`: they are not carried from backend to backend.
    pub fn is_over_budget(&self, bytes_max: usize) -> bool {
        self.bytes() > bytes_max
    }

    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of a setting.
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.entries.binary_search_by(|(known, _)| known.as_ref().cmp(name)).ok()?;
        Some(&self.entries[at].1)
    }

    /// All of them, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(name, value)| (name.as_ref(), value.as_ref()))
    }

    /// The SQL that takes a backend from `self` to `target`; `None` if there is nothing to do.
    ///
    /// An error in it ends the backend's connection (`exit_on_error`, a developer option of PostgreSQL that
    /// anybody may set): the client's statement, which follows in the same write, must not run under other
    /// settings than its session's.
    pub fn change_to(&self, target: &Self) -> Option<String> {
        let sql = self.trial_of(target)?;
        Some(format!("SET exit_on_error = on;{sql}SET exit_on_error = off"))
    }

    /// As [`Settings::change_to`]; an error in it changes nothing.
    pub fn trial_of(&self, target: &Self) -> Option<String> {
        if self == target {
            return None;
        }
        let mut sql = String::new();
        // Rights are given back first, in case the change itself needs them.
        for name in LAST.into_iter().rev() {
            if self.get(name).is_some() && self.get(name) != target.get(name) {
                let _ = write!(sql, "RESET {name};");
            }
        }
        for (name, _) in self.iter().filter(|(name, _)| target.get(name).is_none() && !LAST.contains(name)) {
            let _ = write!(sql, "RESET {};", quote_name(name));
        }
        let changed = |name: &str| target.get(name).filter(|value| self.get(name) != Some(value));
        let plain = target.iter().map(|(name, _)| name).filter(|name| !LAST.contains(name));
        // Setting the session's user also resets its role, so the role is set whenever either changes.
        let user = changed(LAST[0]).map(|value| (LAST[0], value));
        let role = if user.is_some() || self.get(LAST[0]) != target.get(LAST[0]) {
            target.get(LAST[1])
        } else {
            changed(LAST[1])
        };
        let sets = plain
            .filter_map(|name| changed(name).map(|value| (name, value)))
            .chain(user)
            .chain(role.map(|value| (LAST[1], value)));
        for (name, value) in sets {
            let (name, value) = (quote_literal(name), quote_literal(value));
            let _ = write!(sql, "SELECT pg_catalog.set_config({name}, {value}, false);");
        }
        Some(sql)
    }
}

/// A name as a quoted identifier; a dot in it separates two of them.
fn quote_name(name: &str) -> String {
    let parts: Vec<String> =
        name.split('.').map(|part| format!("\"{}\"", part.replace('"', "\"\""))).collect();
    parts.join(".")
}

/// A text as a literal that reads the same whatever `standard_conforming_strings` is.
pub fn quote_literal(text: &str) -> String {
    format!(" E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        Settings::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn equal_settings_cost_nothing_whatever_their_order() {
        let a = settings(&[("TimeZone", "UTC"), ("jit", "off")]);
        let b = settings(&[("jit", "on"), ("jit", "off"), ("timezone", "UTC")]);
        assert_eq!(a.hash(), b.hash());
        assert_eq!(a.change_to(&b), None);
    }

    #[test]
    fn what_is_gone_is_reset_and_what_is_new_is_set() {
        let from = settings(&[("work_mem", "64"), ("app.user", "1")]);
        let to = settings(&[("work_mem", "128"), ("search_path", "a, \"B'\"")]);
        let sql = from.change_to(&to).expect("a difference");
        assert_eq!(
            sql,
            "SET exit_on_error = on;RESET \"app\".\"user\";\
             SELECT pg_catalog.set_config( E'search_path',  E'a, \"B''\"', false);\
             SELECT pg_catalog.set_config( E'work_mem',  E'128', false);SET exit_on_error = off"
        );
    }

    #[test]
    fn rights_are_given_up_last_and_taken_back_first() {
        let role = settings(&[("role", "low"), ("work_mem", "1")]);
        let sql = Settings::default().change_to(&role).expect("a difference");
        assert!(sql.find("work_mem") < sql.find("'role'"), "{sql}");
        let sql = role.change_to(&Settings::default()).expect("a difference");
        assert!(sql.find("RESET role") < sql.find("work_mem"), "{sql}");
    }
}
