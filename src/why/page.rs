//! A report on one screen of 80 columns.

use super::{Severity, Why, words};

/// Columns of the screen.
const COLUMNS: usize = 80;

/// A longer word is taken apart.
const WORD: usize = 60;

/// Lines of evidence of one finding that are shown: the rest is in the JSON.
const EVIDENCE: usize = 6;

/// Figures that are shown.
const FIGURES: usize = 12;

/// Whether the page goes to a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Without colours.
    Plain,
    /// With colours.
    Colours,
}

impl Look {
    fn paint(self, code: &str, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Colours => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        }
    }
}

/// The page. It holds nothing of what came from outside as it came, whoever has sent the report.
pub fn page(why: &Why, look: Look) -> String {
    let mut page = String::new();
    let mut say = |line: &str| {
        page.push_str(line);
        page.push('\n');
    };
    if why.well {
        say(&look.paint("32", "well: nothing keeps users waiting"));
    }
    for (at, finding) in why.findings.iter().enumerate() {
        let colour = if finding.severity == Severity::Harm { "1;31" } else { "1;33" };
        let head = format!("{}. ", at + 1);
        let mark = if finding.severity == Severity::Harm { "" } else { "(nobody waits for it now) " };
        for line in wrapped(&head, &format!("{mark}{}", finding.title)) {
            say(&look.paint(colour, &line));
        }
        for evidence in finding.evidence.iter().take(EVIDENCE) {
            wrapped("   - ", evidence).iter().for_each(|line| say(line));
        }
        if finding.evidence.len() > EVIDENCE {
            say(&format!("   - and {} more (--json)", finding.evidence.len() - EVIDENCE));
        }
        wrapped("   => ", &finding.next).iter().for_each(|line| say(line));
    }
    say("");
    for figure in why.figures.iter().take(FIGURES) {
        wrapped("   ", figure).iter().for_each(|line| say(line));
    }
    if why.figures.len() > FIGURES {
        say(&format!("   and {} more lines (--json)", why.figures.len() - FIGURES));
    }
    for unknown in &why.unknown {
        wrapped("   not known: ", unknown).iter().for_each(|line| say(line));
    }
    page
}

/// A text in lines of the screen's width, of which the first has `head` in front, and the others as many blanks.
fn wrapped(head: &str, text: &str) -> Vec<String> {
    let text = words::shown(text, 4_000);
    let indent = " ".repeat(head.chars().count());
    let mut lines = Vec::new();
    let mut line = head.to_owned();
    let mut used = indent.len();
    let mut is_begun = false;
    for word in text.split(' ').flat_map(pieces) {
        let len = word.chars().count();
        if is_begun && used + 1 + len > COLUMNS {
            lines.push(std::mem::replace(&mut line, indent.clone()));
            (used, is_begun) = (indent.len(), false);
        }
        if is_begun {
            line.push(' ');
            used += 1;
        }
        line.push_str(&word);
        used += len;
        is_begun = true;
    }
    lines.push(line);
    lines
}

/// A word, in pieces if it is longer than a line.
fn pieces(word: &str) -> Vec<String> {
    let chars: Vec<char> = word.chars().collect();
    if chars.len() <= WORD {
        return vec![word.to_owned()];
    }
    chars.chunks(WORD).map(|piece| piece.iter().collect()).collect()
}
