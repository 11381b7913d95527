//! How documentation begins: with its subject, not with a riddle.

use std::fmt::Write;

use super::{Source, source, sources};

/// Words that name no subject: who reads one has to guess what is meant.
const RIDDLES: [&str; 22] = [
    "What", "It", "Its", "Of", "As", "Who", "Whose", "Whom", "This", "That", "These", "Those", "They",
    "Their", "So", "Such", "Then", "There", "Here", "Another", "Else", "Because",
];

/// Doc comments of `src` that begin with one of them. There may be fewer from one change to the next, never more.
const RIDDLES_MAX: usize = 262;

/// The first lines of doc comments, with their numbers.
fn beginnings(source: &Source) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut is_inside = false;
    for (line, number) in source.text.lines().zip(1..) {
        match line.trim_start().strip_prefix("///") {
            Some(text) if !is_inside => found.push((number, text.trim())),
            _ => {}
        }
        is_inside = line.trim_start().starts_with("///");
    }
    found
}

fn is_riddle(beginning: &str) -> bool {
    let first = beginning.split_whitespace().next().unwrap_or_default();
    RIDDLES.contains(&first.trim_end_matches([',', ':', '.', ';']))
}

#[test]
fn documentation_begins_with_its_subject() {
    let mut found = String::new();
    let mut count = 0;
    for source in sources("src") {
        for (line, text) in beginnings(&source).into_iter().filter(|(_, text)| is_riddle(text)) {
            writeln!(found, "{}:{line} {text}", source.name).expect("text");
            count += 1;
        }
    }
    assert!(
        count <= RIDDLES_MAX,
        "{count} doc comments begin with a riddle, more than {RIDDLES_MAX}:\n{found}"
    );
}

#[test]
fn only_the_first_line_of_a_comment_counts() {
    let text = "/// What it is.\n/// It goes on.\nfn f() {}\n    /// Its name.\n    x: u8,\n/// The name.\nfn g() {}\n";
    let source = source("", text);
    let found: Vec<bool> = beginnings(&source).into_iter().map(|(_, text)| is_riddle(text)).collect();
    assert_eq!(found, [true, true, false]);
}
