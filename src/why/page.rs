//! A report on one screen of 80 columns.

use super::{Finding, Severity, Why, words};

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
    let mut lines = Vec::new();
    if why.well {
        lines.push(look.paint("32", "well: nothing keeps users waiting"));
    }
    for (at, finding) in why.findings.iter().enumerate() {
        lines.extend(told(at + 1, finding, look));
    }
    lines.push(String::new());
    lines.extend(why.figures.iter().take(FIGURES).flat_map(|figure| wrapped("   ", figure)));
    if why.figures.len() > FIGURES {
        lines.push(format!("   and {} more lines (--json)", why.figures.len() - FIGURES));
    }
    lines.extend(why.unknown.iter().flat_map(|unknown| wrapped("   not known: ", unknown)));
    lines.push(String::new());
    lines.join("\n")
}

/// The lines of one finding.
fn told(place: usize, finding: &Finding, look: Look) -> Vec<String> {
    let is_harm = finding.severity == Severity::Harm;
    let colour = if is_harm { "1;31" } else { "1;33" };
    let mark = if is_harm { "" } else { "(nobody waits for it now) " };
    let title = wrapped(&format!("{place}. "), &format!("{mark}{}", finding.title));
    let mut lines: Vec<String> = title.iter().map(|line| look.paint(colour, line)).collect();
    lines.extend(finding.evidence.iter().take(EVIDENCE).flat_map(|evidence| wrapped("   - ", evidence)));
    if finding.evidence.len() > EVIDENCE {
        lines.push(format!("   - and {} more (--json)", finding.evidence.len() - EVIDENCE));
    }
    lines.extend(wrapped("   => ", &finding.next));
    lines
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
