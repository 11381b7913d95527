//! Session settings as a value: what a session has set, what a backend has applied, and the SQL that turns one
//! into the other.
//!
//! Values are bytes in the encoding of the database, which the client's need not be: read and written as hexadecimal
//! digits where they are not plain ASCII, so that no conversion on the way can make two values equal or one another.

use std::{fmt::Write as _, hash::BuildHasher as _};

use foldhash::fast::FixedState;

use crate::sql::{quote_literal, quote_name};

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

/// Timeouts that a server ends idle sessions by.
const IDLE_TIMEOUTS: [&str; 2] = ["idle_in_transaction_session_timeout", "idle_session_timeout"];

/// Settings that differ from what the server gives at connect, by lower-case name, sorted. Names are ASCII.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    entries: Vec<(Box<str>, Box<[u8]>)>,
    hash: u64,
    parse_hash: u64,
    is_serializable: bool,
    is_read_only: bool,
    ends_idle: bool,
}

impl Settings {
    /// From pairs in the order they were given: the last one of a name wins.
    pub fn new<V: Into<Vec<u8>>>(pairs: impl IntoIterator<Item = (String, V)>) -> Self {
        let mut entries: Vec<(Box<str>, Box<[u8]>)> = Vec::new();
        for (name, value) in pairs {
            let (name, value) = (name.to_ascii_lowercase(), value.into());
            match entries.binary_search_by(|(known, _)| known.as_ref().cmp(&name)) {
                Ok(at) => entries[at].1 = value.into(),
                Err(at) => entries.insert(at, (name.into(), value.into())),
            }
        }
        let hash = if entries.is_empty() { 0 } else { FixedState::default().hash_one(&entries) };
        let parsing: Vec<_> =
            entries.iter().filter(|(name, _)| !PARSE_NEUTRAL.contains(&name.as_ref())).collect();
        let parse_hash = if parsing.is_empty() { 0 } else { FixedState::default().hash_one(&parsing) };
        let mut settings = Self { entries, hash, parse_hash, ..Self::default() };
        settings.is_serializable = settings.get("default_transaction_isolation") == Some("serializable");
        settings.is_read_only = settings.get("default_transaction_read_only") == Some("on");
        settings.ends_idle = IDLE_TIMEOUTS.iter().any(|name| settings.bytes_of(name).is_some());
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

    /// Whether transactions are serializable unless they say otherwise: not possible on a standby.
    pub const fn is_serializable(&self) -> bool {
        self.is_serializable
    }

    /// Whether transactions only read unless they say otherwise.
    pub const fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    /// Whether one of the timeouts of idle sessions is set.
    pub const fn ends_idle(&self) -> bool {
        self.ends_idle
    }

    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of a setting, if it is set to text.
    pub fn get(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.bytes_of(name)?).ok()
    }

    fn bytes_of(&self, name: &str) -> Option<&[u8]> {
        let at = self.entries.binary_search_by(|(known, _)| known.as_ref().cmp(name)).ok()?;
        Some(&self.entries[at].1)
    }

    /// All of them, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.entries.iter().map(|(name, value)| (name.as_ref(), value.as_ref()))
    }

    /// The same without those of these names.
    #[must_use]
    pub fn without(&self, names: &[&str]) -> Self {
        let others = self.iter().filter(|(name, _)| !names.contains(name));
        Self::new(others.map(|(name, value)| (name.to_owned(), value.to_vec())))
    }

    /// The bytes of all names and values.
    pub fn size(&self) -> usize {
        self.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// The SQL that takes a backend from `self` to `target`; `None` if there is nothing to do. Pure ASCII, one
    /// transaction in one Query message: an error in it changes nothing. Nothing of a client's may follow it before
    /// its success is known.
    pub fn change_to(&self, target: &Self) -> Option<String> {
        if self == target {
            return None;
        }
        let mut sql = String::new();
        let differs = |name: &str| self.bytes_of(name) != target.bytes_of(name);
        let others = self.iter().chain(target.iter()).map(|(name, _)| name);
        let changes_others = others.filter(|name| !LAST.contains(name)).any(differs);
        // Rights are given back first, in case the change itself needs them, also those that both have.
        for name in LAST.into_iter().rev() {
            if self.bytes_of(name).is_some() && (changes_others || differs(name)) {
                let _ = write!(sql, "RESET {name};");
            }
        }
        let gone = |name: &str| target.bytes_of(name).is_none() && !LAST.contains(&name);
        for (name, _) in self.iter().filter(|(name, _)| gone(name)) {
            let _ = write!(sql, "RESET {};", quote_setting(name));
        }
        let changed = |name: &str| target.bytes_of(name).filter(|value| self.bytes_of(name) != Some(value));
        let plain = target.iter().map(|(name, _)| name).filter(|name| !LAST.contains(name));
        // Setting the session's user also resets its role, so the role is set whenever either changes.
        let last = |name, is_gone: bool| if is_gone { target.bytes_of(name) } else { changed(name) };
        let user = last(LAST[0], changes_others).map(|value| (LAST[0], value));
        let role = last(LAST[1], changes_others || user.is_some() || differs(LAST[0]));
        let sets = plain
            .filter_map(|name| changed(name).map(|value| (name, value)))
            .chain(user)
            .chain(role.map(|value| (LAST[1], value)));
        for (name, value) in sets {
            let (name, value) = (quote_literal(name), quote_value(value));
            let _ = write!(sql, "SELECT pg_catalog.set_config({name}, {value}, false);");
        }
        Some(sql)
    }
}

/// The name of a setting in quotes; a dot in it separates two names.
fn quote_setting(name: &str) -> String {
    let parts: Vec<String> = name.split('.').map(quote_name).collect();
    parts.join(".")
}

/// An expression of type text, pure ASCII, for bytes in the encoding of the database.
pub(super) fn quote_value(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) => quote_literal(text),
        _ => {
            let mut digits = String::with_capacity(2 * value.len());
            for byte in value {
                let _ = write!(digits, "{byte:02x}");
            }
            format!(
                " pg_catalog.convert_from(pg_catalog.decode('{digits}', 'hex'), pg_catalog.getdatabaseencoding())"
            )
        }
    }
}

/// The bytes that hexadecimal digits stand for; `None` if they are none.
pub(super) fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
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
            "RESET \"app\".\"user\";\
             SELECT pg_catalog.set_config( E'search_path',  E'a, \"B''\"', false);\
             SELECT pg_catalog.set_config( E'work_mem',  E'128', false);"
        );
    }

    #[test]
    fn whatever_bytes_a_value_has_the_sql_is_ascii() {
        let value = |bytes: &[u8]| Settings::new([("app.tenant".to_owned(), bytes.to_vec())]);
        let (latin, utf8, other) = (value(b"caf\xe9"), value("caf\u{e9}".as_bytes()), value(b"caf\xe8"));
        assert_ne!(latin.hash(), other.hash());
        assert_ne!(latin, utf8);
        let sql = latin.change_to(&other).expect("they differ");
        assert!(sql.is_ascii() && sql.contains("'636166e8', 'hex'"), "{sql}");
        assert_eq!(unhex("636166e8").as_deref(), Some(&b"caf\xe8"[..]));
        assert_eq!((unhex("6"), unhex("6x"), unhex("")), (None, None, Some(Vec::new())));
        let sql = Settings::default().change_to(&value(b"two\nlines")).expect("one is set");
        assert!(!sql.contains('\n'), "{sql}");
    }

    #[test]
    fn rights_are_given_up_last_and_taken_back_first() {
        let role = settings(&[("role", "low"), ("work_mem", "1")]);
        let sql = Settings::default().change_to(&role).expect("a difference");
        assert!(sql.find("work_mem") < sql.find("'role'"), "{sql}");
        let sql = role.change_to(&Settings::default()).expect("a difference");
        assert!(sql.find("RESET role") < sql.find("work_mem"), "{sql}");
        // Both have the same: what is changed besides is not changed by the role.
        let other = settings(&[("role", "low"), ("lock_timeout", "1")]);
        let sql = role.change_to(&other).expect("a difference");
        let at = |part: &str| sql.find(part).unwrap_or_else(|| panic!("{part} is missing: {sql}"));
        assert!(at("RESET role") < at("RESET \"work_mem\"") && at("'lock_timeout'") < at("'role'"), "{sql}");
        let both = settings(&[("role", "low"), ("session_authorization", "other"), ("work_mem", "1")]);
        let sql = both.change_to(&role).expect("a difference");
        assert!(sql.contains("RESET session_authorization;") && !sql.contains("work_mem"), "{sql}");
        assert_eq!(sql.matches("'role'").count(), 1, "{sql}");
    }
}
