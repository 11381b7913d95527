//! Faults as the table in README.md: what was seen is as it was declared, the figures are those of a run.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path, time::Duration};

use super::{
    Finding,
    faults::{Fault, GROUPS},
    load::{Seen, Who},
    units::KINDS,
};

/// What all rounds of one fault came to.
pub(super) struct Row {
    name: &'static str,
    /// The cells up to the figures, as they are declared.
    declared: Vec<String>,
    bound: String,
    longest: (Duration, String),
    recovery: (Duration, String),
    lost: usize,
    doubled: usize,
    done: usize,
    unknown: usize,
    seen: Seen,
    /// Declared, by who was to see it.
    expected: BTreeSet<(Who, String)>,
    pub(super) wrong: Vec<String>,
}

impl Row {
    pub(super) fn new(fault: &Fault) -> Self {
        let whos = std::iter::once(None).chain(KINDS.map(Some));
        let expected =
            whos.clone().flat_map(|who| fault.expected(who).map(move |code| (who, code.to_owned())));
        Self {
            name: fault.name,
            declared: whos.map(|who| cell(fault, who)).collect(),
            bound: fault.bound.name(),
            longest: Default::default(),
            recovery: Default::default(),
            lost: 0,
            doubled: 0,
            done: 0,
            unknown: 0,
            seen: Seen::new(),
            expected: expected.collect(),
            wrong: Vec::new(),
        }
    }

    /// Takes one round over.
    pub(super) fn add(&mut self, fault: &Fault, finding: &Finding) {
        self.longest = finding.longest.clone().max(std::mem::take(&mut self.longest));
        self.recovery = finding.recovery.clone().max(std::mem::take(&mut self.recovery));
        self.lost += finding.verdict.lost;
        self.doubled += finding.verdict.doubled;
        self.done += finding.verdict.done;
        self.unknown += finding.verdict.unknown;
        for (who, seen) in &finding.seen {
            self.seen.entry(*who).or_default().extend(seen.clone());
        }
        self.wrong.extend(finding.wrong.iter().map(|what| format!("{}: {what}", fault.name)));
    }

    /// One line for whoever follows a drill.
    pub(super) fn progress(&self) -> String {
        let Self { name, longest, recovery, done, unknown, seen, wrong, .. } = self;
        let seen: Vec<String> = seen
            .iter()
            .map(|(who, codes)| {
                format!("{}: {}", title(*who), codes.keys().cloned().collect::<Vec<_>>().join(" "))
            })
            .collect();
        let seen = seen.join("; ");
        let faults = if wrong.is_empty() { "ok".to_owned() } else { format!("WRONG {wrong:?}") };
        let ((waited, for_what), (after, last)) = (longest, recovery);
        format!(
            "{name}: {done} done, {unknown} unknown, {waited:?} ({for_what:.60}), again after {after:?} ({last}), \
             saw [{seen}]: {faults}"
        )
    }

    /// What was declared and not seen in any round.
    fn unseen(&self) -> Vec<String> {
        let is_unseen =
            |(who, code): &&(Who, String)| !self.seen.get(who).is_some_and(|seen| seen.contains_key(code));
        self.expected.iter().filter(is_unseen).map(|(who, code)| format!("{} {code}", title(*who))).collect()
    }

    fn markdown(&self) -> String {
        let mut line = format!("| {} |", self.name);
        for cell in &self.declared {
            write!(line, " {cell} |").expect("text takes text");
        }
        let (longest, recovery) = (seconds(self.longest.0), seconds(self.recovery.0));
        write!(line, " {} | {} | {longest} | {} | {recovery} |", self.lost, self.doubled, self.bound)
            .expect("text takes text");
        line
    }
}

fn title(who: Who) -> &'static str {
    who.map_or("its own client", super::units::Kind::title)
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

fn cell(fault: &Fault, who: Who) -> String {
    let mut codes: Vec<String> = fault
        .expected(who)
        .map(|code| {
            let bare = code.trim_end_matches(super::session::ENDS);
            let is_sqlstate = bare.len() == 5 && bare.bytes().any(|byte| byte.is_ascii_digit());
            if is_sqlstate { code.replace(bare, &format!("`{bare}`")) } else { code.to_owned() }
        })
        .collect();
    codes.sort();
    if codes.is_empty() { "–".to_owned() } else { codes.join(", ") }
}

fn header() -> String {
    let mut titles = vec!["fault", title(None)];
    titles.extend(KINDS.map(super::units::Kind::title));
    titles.extend(["lost", "doubled", "longest wait", "bound", "again after"]);
    format!("| {} |\n|{}", titles.join(" | "), "---|".repeat(titles.len()))
}

/// The table as it stands in README.md, and below it what was declared and not seen.
#[expect(clippy::print_stdout, reason = "it is what the run is for")]
pub(super) fn print(rows: &[Row], rounds: u64) {
    println!("\n{}", header());
    for row in rows {
        println!("{}", row.markdown());
    }
    println!("\n{} faults, {rounds} rounds", rows.len());
    let (done, unknown) =
        rows.iter().fold((0, 0), |(done, unknown), row| (done + row.done, unknown + row.unknown));
    println!("{done} units of work acknowledged, {unknown} told to be unknown");
    for row in rows.iter().filter(|row| !row.unseen().is_empty()) {
        println!("not seen this time: {}: {}", row.name, row.unseen().join(", "));
    }
}

#[test]
fn readme_has_the_table_of_the_faults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(path).expect("it is text");
    let after = readme.split_once(&header()).map(|(_, after)| after);
    let after = after.unwrap_or_else(|| panic!("README.md has no table under\n{}", header()));
    let lines: Vec<&str> = after.lines().skip(1).take_while(|line| line.starts_with('|')).collect();
    let rows: Vec<Row> = GROUPS.iter().flat_map(|group| group.faults.iter().map(Row::new)).collect();
    let mut wrong = String::new();
    for row in &rows {
        // All but the figures: name, what is seen, nothing lost, nothing doubled, and the bound.
        let markdown = row.markdown();
        let wanted = without_figures(&markdown);
        if !lines.iter().any(|line| without_figures(line) == wanted) {
            writeln!(wrong, "missing: {markdown}").expect("text takes text");
        }
    }
    for line in &lines {
        if !rows.iter().any(|row| line.starts_with(&format!("| {} |", row.name))) {
            writeln!(wrong, "of no fault: {line}").expect("text takes text");
        }
    }
    assert!(rows.len() >= 40, "{} faults", rows.len());
    assert!(lines.len() == rows.len() && wrong.is_empty(), "README.md is not of this drill:\n{wrong}");
}

/// The cells of a line without longest wait and time to recover.
fn without_figures(line: &str) -> Vec<&str> {
    let mut cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let last = cells.len();
    if last > 3 {
        cells.remove(last - 1);
        cells.remove(last - 3);
    }
    cells
}
