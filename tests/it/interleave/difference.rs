//! The first answers that differ, and the steps that led there.

use std::fmt;

use super::acts::Act;

/// Where sessions and their twins take steps.
pub(super) trait Stage {
    /// A random case of so many steps.
    async fn run(&mut self, seed: u64, steps: usize) -> Result<(), Difference>;

    /// The same steps again, or some of them.
    async fn replay(&mut self, steps: &[Step], size: Size) -> Result<(), Difference>;
}

/// One step, as it was taken.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) session: usize,
    pub(super) act: Act,
}

/// What a case is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) sessions: usize,
    pub(super) backends: usize,
    /// With LISTEN and NOTIFY: the connection that listens for all takes one more place.
    pub(super) channels: bool,
}

/// The first answers that differ: those of the last step.
pub(super) struct Difference {
    pub(super) steps: Vec<Step>,
    pub(super) size: Size,
    pub(super) direct: Vec<String>,
    pub(super) proxied: Vec<String>,
    /// How many lines of both agree.
    pub(super) same: usize,
}

impl Difference {
    /// What differs, roughly: to tell one difference from another.
    pub(super) fn kind(&self) -> String {
        let (direct, proxied) = self.first();
        let short = |line: Option<&String>| {
            let line = line.map_or("", String::as_str);
            let end = line.find(" M=").unwrap_or(line.len()).min(40);
            line.chars().take(end).collect::<String>()
        };
        format!("{} / {}", short(direct), short(proxied))
    }

    /// The last step with both answers.
    pub(super) fn last(&self) -> String {
        let mut text = String::new();
        self.write(&mut text, self.steps.last().as_slice()).expect("text takes text");
        text
    }

    /// Whether the proxy had no place for a session: the model was wrong, or steps are missing.
    pub(super) fn is_refusal(&self) -> bool {
        self.proxied.iter().any(|line| line.contains("C=53300"))
    }

    fn first(&self) -> (Option<&String>, Option<&String>) {
        (self.direct.get(self.same), self.proxied.get(self.same))
    }

    fn write(&self, f: &mut impl fmt::Write, steps: &[&Step]) -> fmt::Result {
        writeln!(f, "{} sessions, {} backends", self.size.sessions, self.size.backends)?;
        for step in steps {
            writeln!(f, "  {}: {:?}", step.session, step.act)?;
        }
        self.direct[..self.same].iter().try_for_each(|line| writeln!(f, "    {line}"))?;
        self.direct[self.same..].iter().try_for_each(|line| writeln!(f, "direct  {line}"))?;
        self.proxied[self.same..].iter().try_for_each(|line| writeln!(f, "proxied {line}"))
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, &self.steps.iter().collect::<Vec<_>>())
    }
}
