//! Reads a TOML text value by value, with the place of each. A value of the wrong shape is reported and its
//! default taken, so that the reading goes on and finds the next problem: serde would stop at the first.
//!
//! Owns shapes (text, number, list, table). Refuses to judge how values fit together: `validate` does.

use std::{
    borrow::Cow,
    ops::{Range, RangeInclusive},
    path::PathBuf,
    time::Duration,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    expand::{Environment, expand},
    keys,
    problem::{Report, Wrong, shown},
    units,
};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) at: Range<usize>,
}

/// One table of the file; without a table (it is not in the file) every key has its default.
#[derive(Clone)]
pub(super) struct Section<'a> {
    report: &'a Report<'a>,
    environment: Environment<'a>,
    /// As written: `pools.jobs`.
    pub(super) name: String,
    pub(super) at: Range<usize>,
    table: Option<&'a DeTable<'a>>,
}

impl<'a> Section<'a> {
    /// The whole file.
    pub(super) fn root(report: &'a Report<'a>, environment: Environment<'a>, table: &'a DeTable<'a>) -> Self {
        let root = Self { report, environment, name: String::new(), at: 0..0, table: Some(table) };
        root.refuse_unknown("");
        root
    }

    /// The table under `key`, whose keys are those of the section `known`.
    pub(super) fn section(&self, key: &str, known: &str) -> Section<'a> {
        let mut section = self.any_section(key);
        section.refuse_unknown(known);
        section.name = self.path(key);
        section
    }

    /// The tables under `key`, which have names of the user's choice, in the order of the file.
    pub(super) fn named(&self, key: &str) -> Vec<(String, Section<'a>)> {
        let all = self.any_section(key);
        let known = format!("{key}.*");
        let mut entries: Vec<_> = all.table.into_iter().flatten().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        let mut sections = Vec::new();
        for (name, _) in entries {
            let text = name.get_ref().as_ref();
            let letters =
                text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
            if text.is_empty() || text.len() > 40 || !letters {
                let hint = "write up to 40 lower case letters, digits, _ and - (it becomes a metric's label)";
                self.report.add(&name.span(), all.path(text), Wrong::new("not a good name", hint));
            }
            sections.push((text.to_owned(), all.section(text, &known)));
        }
        sections
    }

    /// As [`Section::section`], of which the keys have been looked at already.
    pub(super) fn any_section(&self, key: &str) -> Section<'a> {
        let mut section = Section {
            report: self.report,
            environment: self.environment,
            name: self.path(key),
            at: self.at.clone(),
            table: None,
        };
        if let Some((name, value)) = self.entry(key) {
            section.at = name.span();
            section.table = value.get_ref().as_table();
            if section.table.is_none() {
                self.wrong_type(
                    key,
                    value,
                    "a table",
                    &format!("write [{}] and its keys below", section.name),
                );
            }
        }
        section
    }

    fn refuse_unknown(&self, known: &str) {
        for (key, _) in self.table.into_iter().flatten() {
            let text = key.get_ref().as_ref();
            if !keys::of(known).contains(&text) {
                let wrong = Wrong::new("unknown key", keys::hint(known, text));
                self.report.add(&key.span(), self.path(text), wrong);
            }
        }
    }

    /// Whether the file gives the key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    /// Whether the file gives a list for the key.
    pub(super) fn is_list(&self, key: &str) -> bool {
        self.entry(key).is_some_and(|(_, value)| value.get_ref().is_array())
    }

    /// Reports something about a key, at its value if the file gives it, else at the section.
    pub(super) fn problem(&self, key: &str, wrong: Wrong) {
        let at = self.entry(key).map_or(self.at.clone(), |(_, value)| value.span());
        self.problem_at(&at, key, wrong);
    }

    /// Warns of something about a key, at its value if the file gives it, else at the section.
    pub(super) fn warn(&self, key: &str, wrong: Wrong) {
        let at = self.entry(key).map_or(self.at.clone(), |(_, value)| value.span());
        self.report.warn(&at, self.path(key), wrong);
    }

    /// Reports something about the whole section.
    pub(super) fn report(&self, wrong: Wrong) {
        self.report.add(&self.at, self.name.clone(), wrong);
    }

    /// Reports something about a key at a given place.
    pub(super) fn problem_at(&self, at: &Range<usize>, key: &str, wrong: Wrong) {
        self.report.add(at, self.path(key), wrong);
    }

    /// Text; `None` if the key is absent or its value was reported.
    pub(super) fn text(&self, key: &str) -> Option<Located<String>> {
        let (_, value) = self.entry(key)?;
        self.text_of(key, value)
    }

    /// Text that `parse` turns into something.
    pub(super) fn parsed<T>(&self, key: &str, default: T, parse: impl Fn(&str) -> Result<T, Wrong>) -> T {
        let Some(text) = self.text(key) else { return default };
        parse(&text.value).unwrap_or_else(|wrong| {
            self.problem_at(&text.at, key, wrong);
            default
        })
    }

    /// A path.
    pub(super) fn path_of_file(&self, key: &str) -> Option<PathBuf> {
        let text = self.text(key)?;
        if text.value.is_empty() {
            self.problem(key, Wrong::new("is empty", "write a path, or leave the key out"));
        }
        Some(PathBuf::from(text.value))
    }

    /// A duration of at least `least`, and at most a year.
    pub(super) fn duration(&self, key: &str, default: Duration, least: Duration) -> Duration {
        if self.bare_number(key, "s") {
            return default;
        }
        self.parsed(key, default, |text| {
            let value = units::duration(text)?;
            let year = Duration::from_secs(365 * 86_400);
            if value < least || value > year {
                let hint = format!("write at least \"{}ms\" and at most \"365d\"", least.as_millis());
                return Err(Wrong::new(format!("{} is out of bounds", shown(text)), hint));
            }
            Ok(value)
        })
    }

    /// A size in bytes.
    pub(super) fn size(&self, key: &str, default: usize, bounds: &RangeInclusive<usize>) -> usize {
        if self.bare_number(key, "B") {
            return default;
        }
        self.parsed(key, default, |text| {
            let value = units::size(text)?;
            if bounds.contains(&value) {
                return Ok(value);
            }
            let hint = format!("write \"{}B\" to \"{}MiB\"", bounds.start(), bounds.end() >> 20);
            Err(Wrong::new(format!("{} is out of bounds", shown(text)), hint))
        })
    }

    /// Reports a number where a text with a unit is wanted.
    fn bare_number(&self, key: &str, unit: &str) -> bool {
        let Some((_, value)) = self.entry(key) else { return false };
        let DeValue::Integer(number) = value.get_ref() else { return false };
        let number = number.to_string();
        let wrong = Wrong::new(format!("{number} has no unit"), format!("write {key} = \"{number}{unit}\""));
        self.problem(key, wrong);
        true
    }

    /// A whole number; also as text, so that it may come from a variable.
    pub(super) fn count(&self, key: &str, default: usize, bounds: &RangeInclusive<usize>) -> usize {
        let Some((_, value)) = self.entry(key) else { return default };
        let hint = || format!("write a whole number from {} to {}", bounds.start(), bounds.end());
        let text = match value.get_ref() {
            DeValue::Integer(number) => number.to_string(),
            DeValue::String(_) => match self.text(key) {
                Some(text) => text.value,
                None => return default,
            },
            _ => {
                self.wrong_type(key, value, "a whole number", &hint());
                return default;
            }
        };
        match text.replace('_', "").parse::<i128>() {
            Ok(number) if usize::try_from(number).is_ok_and(|number| bounds.contains(&number)) => {
                number as usize
            }
            Ok(number) => {
                self.problem(key, Wrong::new(format!("{number} is out of bounds"), hint()));
                default
            }
            Err(_) => {
                self.problem(key, Wrong::new(format!("{} is not a whole number", shown(&text)), hint()));
                default
            }
        }
    }

    /// `true` or `false`; also as text, so that it may come from a variable.
    pub(super) fn flag(&self, key: &str, default: bool) -> bool {
        let Some((_, value)) = self.entry(key) else { return default };
        match value.get_ref() {
            DeValue::Boolean(value) => *value,
            DeValue::String(_) => self.parsed(key, default, |text| match text {
                "true" => Ok(true),
                "false" => Ok(false),
                _ => Err(Wrong::new(
                    format!("{} is neither true nor false", shown(text)),
                    "write true or false",
                )),
            }),
            _ => {
                self.wrong_type(key, value, "true or false", "write true or false");
                default
            }
        }
    }

    /// A list of texts, none of them empty.
    pub(super) fn texts(&self, key: &str) -> Vec<Located<String>> {
        let Some((_, value)) = self.entry(key) else { return Vec::new() };
        let hint = format!("write {key} = [\"..\", \"..\"]");
        let Some(list) = value.get_ref().as_array() else {
            self.wrong_type(key, value, "a list", &hint);
            return Vec::new();
        };
        let texts: Vec<_> = list.iter().filter_map(|value| self.text_of(key, value)).collect();
        for text in texts.iter().filter(|text| text.value.is_empty()) {
            self.problem_at(&text.at, key, Wrong::new("an entry is empty", &hint));
        }
        texts
    }

    fn text_of(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Option<Located<String>> {
        let Some(text) = value.get_ref().as_str() else {
            self.wrong_type(key, value, "a text", "write it in double quotes");
            return None;
        };
        match expand(text, self.environment) {
            Ok(text) => Some(Located { value: text, at: value.span() }),
            Err(wrong) => {
                self.problem_at(&value.span(), key, wrong);
                None
            }
        }
    }

    fn wrong_type(&self, key: &str, value: &Spanned<DeValue<'_>>, wanted: &str, hint: &str) {
        let found = match value.get_ref() {
            DeValue::Integer(number) => number.to_string(),
            DeValue::Float(number) => number.to_string(),
            DeValue::Boolean(value) => value.to_string(),
            DeValue::String(text) => shown(text),
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
            DeValue::Datetime(_) => "a date or time".to_owned(),
        };
        self.problem_at(&value.span(), key, Wrong::new(format!("must be {wanted}, not {found}"), hint));
    }

    fn entry(&self, key: &str) -> Option<(&'a Spanned<Cow<'a, str>>, &'a Spanned<DeValue<'a>>)> {
        self.table?.iter().find(|(name, _)| name.get_ref() == key)
    }

    fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }
}
