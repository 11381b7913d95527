//! A verdict with the names that led to it, for people: `bulkhead classify "SQL"`, and errors that must say
//! which tables do not live together.

use std::fmt;

use super::{
    catalog::Catalog,
    judge,
    replicas::NOT_ON_REPLICAS,
    rules::Rules,
    seen::Seen,
    verdict::{Class, Effects, Verdict},
};

/// A verdict and what was met on the way to it. Names are as written, qualified if they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The verdict.
    pub verdict: Verdict,
    /// Job tables, functions and other job objects.
    pub job_tables: Vec<String>,
    /// Tables that are not job objects.
    pub app_tables: Vec<String>,
    /// Tables read.
    pub read_tables: Vec<String>,
    /// Tables written or defined.
    pub written_tables: Vec<String>,
    /// Functions called by name.
    pub functions: Vec<String>,
    /// What is not proven to leave nothing on its backend.
    pub unproven: Vec<String>,
}

/// Judges a text and keeps the names. Not cached.
pub fn explain(rules: &Rules, catalog: &Catalog, text: &[u8]) -> Explanation {
    let mut seen = Seen::default();
    let verdict = judge::judge(rules, catalog, text, Some(&mut seen));
    Explanation {
        verdict,
        job_tables: seen.job,
        app_tables: seen.application,
        read_tables: seen.read,
        written_tables: seen.written,
        functions: seen.functions,
        unproven: seen.unproven,
    }
}

impl Explanation {
    /// What a read needs of a replica, or what becomes of reads behind a write, in words.
    fn on_replicas(&self) -> String {
        let verdict = &self.verdict;
        let (tables, names) = match verdict.class {
            Class::Read => (verdict.reads(), &self.read_tables),
            _ => (verdict.changes(), &self.written_tables),
        };
        let more = if tables.slots().count() > names.len() { " and what these reach" } else { "" };
        let which = match names.as_slice() {
            _ if tables.is_all() => "any table".to_owned(),
            [] => "what it calls".to_owned(),
            names => format!("{}{more}", names.join(", ")),
        };
        match verdict.class {
            Class::Read if verdict.effects.has(NOT_ON_REPLICAS) => {
                "none: it ties the session to its connection, or is to meet others".to_owned()
            }
            Class::Read if tables.is_empty() => "any will do".to_owned(),
            Class::Read => format!("one that has what was last written to {which}"),
            _ if tables.is_empty() => "reads do not wait for it".to_owned(),
            _ => format!("reads of {which} wait for it to be replayed"),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = &self.verdict;
        writeln!(f, "class      {}, because {}", verdict.class.label(), verdict.reason.words())?;
        if let Some(hint) = verdict.hint {
            writeln!(f, "hint       {hint:?}")?;
        }
        if verdict.is_worker {
            writeln!(f, "worker     a tag in a comment says so")?;
        }
        for (title, names) in [
            ("job", &self.job_tables),
            ("app", &self.app_tables),
            ("reads", &self.read_tables),
            ("writes", &self.written_tables),
            ("calls", &self.functions),
        ] {
            if !names.is_empty() {
                writeln!(f, "{title:<11}{}", names.join(", "))?;
            }
        }
        writeln!(f, "replicas   {}", self.on_replicas())?;
        let proof = match (verdict.effects.has(Effects::UNPROVEN), &*self.unproven) {
            (false, _) => "proven to leave nothing on its backend that is not carried".to_owned(),
            (true, []) => "not proven to leave nothing on its backend: it is not read".to_owned(),
            (true, names) => format!("not proven to leave nothing on its backend: {}", names.join(", ")),
        };
        writeln!(f, "state      {proof}")?;
        // The tables have been named above.
        if verdict.class == Class::Job && !verdict.effects.has(Effects::JOB_SIDE) {
            writeln!(f, "enqueues   may run in a transaction of the application, if jobs are relayed")?;
        }
        let told = Effects::APP_OBJECTS
            .with(Effects::UNPROVEN)
            .with(Effects::JOB_SIDE)
            .with(Effects::JOB_WRITES)
            .with(Effects::JOB_DDL);
        let effects = verdict.effects.without(told);
        if effects != Effects::NONE {
            writeln!(f, "effects    {effects:?}")?;
        }
        Ok(())
    }
}
