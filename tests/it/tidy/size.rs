//! How long files and functions may be.

use std::fmt::Write;

use super::{Source, source, sources};

/// Lines of a file.
const FILE_LINES_MAX: usize = 500;

/// Lines of a function, in each folder: a test tells a whole conversation.
const FUNCTION_LINES_MAX: [(&str, usize); 3] = [("src", 70), ("benches", 70), ("tests", 100)];

/// Files that may be longer, with the reason.
const LONG_FILES: [(&str, &str); 1] =
    [("src/session/reply.rs", "all wording for clients is in one place, with the test of its table")];

/// Functions that may be longer, with the reason.
const LONG_FUNCTIONS: [(&str, &str, &str); 1] = [(
    "src/session/extended.rs",
    "rewrite_messages",
    "one arm for each kind of message, and one for each outcome",
)];

/// The functions of a file: the line each begins on, its name, and how many lines it has.
fn functions(source: &Source) -> Vec<(usize, &str, usize)> {
    let lines: Vec<&str> = source.text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let bare = line.trim_start();
        let indent = &line[..line.len() - bare.len()];
        let Some((before, name)) = bare.split_once("fn ") else { continue };
        let are_qualifiers = before.split_whitespace().all(|word| {
            ["pub", "const", "async"].contains(&word)
                || word.starts_with("pub(")
                || word == "super)"
                || word == "crate)"
        });
        if !are_qualifiers || bare.ends_with(['}', ';']) {
            continue;
        }
        let is_end = |line: &&&str| {
            line.strip_prefix(indent)
                .is_some_and(|rest| rest == "}" || rest.ends_with(';') && !rest.starts_with(' '))
        };
        let len = lines[at..].iter().position(|line| is_end(&line)).map_or(0, |last| last + 1);
        let name = name.split(['(', '<']).next().unwrap_or_default();
        found.push((at + 1, name, len));
    }
    found
}

#[test]
fn every_file_says_what_it_is_and_is_short() {
    let mut wrong = String::new();
    let files: Vec<Source> = ["src", "tests", "benches"].into_iter().flat_map(sources).collect();
    for source in &files {
        if !source.text.starts_with("//!") {
            writeln!(wrong, "{} does not open with `//!`", source.name).expect("text");
        }
        let lines = source.text.lines().count();
        let is_excepted = LONG_FILES.iter().any(|(file, _)| *file == source.name);
        if lines > FILE_LINES_MAX && !is_excepted {
            writeln!(wrong, "{} has {lines} lines, more than {FILE_LINES_MAX}; split it", source.name)
                .expect("text");
        }
        if lines <= FILE_LINES_MAX && is_excepted {
            writeln!(wrong, "{} is excepted and short enough", source.name).expect("text");
        }
    }
    for (file, reason) in LONG_FILES {
        if !files.iter().any(|source| source.name == file) {
            writeln!(wrong, "{file} is excepted ({reason}) and does not exist").expect("text");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_function_fits_on_a_screen() {
    let mut wrong = String::new();
    for (folder, max) in FUNCTION_LINES_MAX {
        for source in sources(folder) {
            for (line, name, lines) in functions(&source) {
                let file = &source.name;
                let is_excepted = LONG_FUNCTIONS.iter().any(|(of, known, _)| of == file && *known == name);
                if is_excepted && lines <= max {
                    writeln!(wrong, "{file}:{line} {name} is excepted and short enough").expect("text");
                }
                if is_excepted || lines <= max {
                    continue;
                }
                writeln!(wrong, "{file}:{line} {name} has {lines} lines, more than {max}; split it")
                    .expect("text");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn functions_are_measured_to_their_end() {
    let text = "pub(super) async fn one(\n    a: u8,\n) {\n    let b = || {\n        a\n    };\n}\nimpl X {\n    fn two(&self) -> u8 {\n        \
                0\n    }\n    fn three() {}\n}\ntrait Y {\n    fn four(\n        &self,\n    ) -> u8;\n}\n";
    assert_eq!(functions(&source("", text)), [(1, "one", 7), (9, "two", 3), (15, "four", 3)]);
}
