//! What is wrong with a configuration: every problem with its place and what to write instead.
//!
//! Owns the places and the wording around them. Refuses to show passwords: [`shown`] is the way for a value
//! into a message.

use std::{cell::RefCell, fmt, ops::Range};

/// Nobody reads more at once; it also bounds the work on a file that is something else altogether.
const PROBLEMS_MAX: usize = 100;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, from 1; 0 if it is not about a place in a file.
    pub line: usize,
    /// Column in characters, from 1; 0 as above.
    pub column: usize,
    /// The key, say `pools.jobs.max_connections`, or the name of an environment variable.
    pub key: String,
    /// What is wrong, with the offending value.
    pub message: String,
    /// What to write instead.
    pub hint: String,
}

/// All that is wrong, or that is warned of, in the order of the file. `Display` gives a line and a hint for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    /// The file as it is to be shown, or `environment`.
    pub file: String,
    /// As an error never empty.
    pub problems: Vec<Problem>,
}

/// What is wrong with a value, before it is known where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) hint: String,
}

/// Collects problems while a text is read.
pub(super) struct Report<'a> {
    source: &'a str,
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            let newline = if n == 0 { "" } else { "\n" };
            write!(f, "{newline}{}:", self.file)?;
            if problem.line > 0 {
                write!(f, "{}:{}:", problem.line, problem.column)?;
            }
            if !problem.key.is_empty() {
                write!(f, " {}:", problem.key)?;
            }
            write!(f, " {}", problem.message)?;
            if !problem.hint.is_empty() {
                write!(f, "\n    {}", problem.hint)?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl Problems {
    /// A line for each.
    pub fn lines(&self) -> Vec<String> {
        let one = |problem: &Problem| {
            let alone = Self { file: self.file.clone(), problems: vec![problem.clone()] };
            // A problem's hint is on a line of its own.
            alone.to_string().replace("\n    ", "; ")
        };
        self.problems.iter().map(one).collect()
    }
}

impl Wrong {
    pub(super) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }
}

impl<'a> Report<'a> {
    pub(super) fn new(source: &'a str) -> Self {
        Self { source, problems: RefCell::default(), warnings: RefCell::default() }
    }

    pub(super) fn add(&self, at: &Range<usize>, key: impl Into<String>, wrong: Wrong) {
        self.push(&self.problems, at, key.into(), wrong);
    }

    /// Something that may be meant, but is more likely not.
    pub(super) fn warn(&self, at: &Range<usize>, key: impl Into<String>, wrong: Wrong) {
        self.push(&self.warnings, at, key.into(), wrong);
    }

    fn push(&self, list: &RefCell<Vec<Problem>>, at: &Range<usize>, key: String, wrong: Wrong) {
        if list.borrow().len() >= PROBLEMS_MAX {
            return;
        }
        let (line, column) = self.place(at.start);
        let Wrong { message, hint } = wrong;
        list.borrow_mut().push(Problem { line, column, key, message, hint });
    }

    fn place(&self, offset: usize) -> (usize, usize) {
        let before = self.source.get(..offset).unwrap_or(self.source);
        let line = before.rsplit('\n').next().unwrap_or_default();
        (before.matches('\n').count() + 1, line.chars().count() + 1)
    }

    /// `value` and what it is warned of, unless something was wrong.
    pub(super) fn finish<T>(self, file: &str, value: T) -> Result<(T, Problems), Problems> {
        let in_order = |problems: RefCell<Vec<Problem>>| {
            let mut problems = problems.into_inner();
            problems.sort_by_key(|problem| (problem.line, problem.column));
            problems.dedup();
            // Of nothing there is no place either: configurations that say the same are the same.
            let file = if problems.is_empty() { String::new() } else { file.to_owned() };
            Problems { file, problems }
        };
        let problems = in_order(self.problems);
        if problems.problems.is_empty() { Ok((value, in_order(self.warnings))) } else { Err(problems) }
    }
}

/// A size as the file may write it.
pub(super) fn shown_size(bytes: usize) -> String {
    match bytes {
        _ if bytes.is_multiple_of(1 << 20) && bytes > 0 => format!("{}MiB", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) && bytes > 0 => format!("{}KiB", bytes >> 10),
        _ => format!("{bytes}B"),
    }
}

/// A value as a message may show it: quoted, short, and without what could be a password.
pub(super) fn shown(value: &str) -> String {
    if let Some((scheme, _)) = value.split_once("://") {
        let scheme: String = scheme.chars().take(16).collect();
        return format!("\"{scheme}://***\"");
    }
    let short: String = value.chars().take(60).collect();
    let more = if short.len() < value.len() { "..." } else { "" };
    format!("{:?}", format!("{short}{more}"))
}
