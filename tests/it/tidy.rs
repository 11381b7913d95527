//! The architecture as a test: what the folders of `src` promise about each other, and what no file may do.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

/// The folders of `src`, each of which may use only itself and those above it.
const LAYERS: [&str; 20] = [
    "wire", "metrics", "auth", "sql", "route", "backend", "pool", "topology", "catalog", "listen", "shared",
    "session", "admin", "door", "config", "startup", "commands", "demo", "main", "lib",
];

/// Files of `src` itself, beside the layers: what a layer of theirs would be. The others (`app`, `reload`, ...) are on
/// top and may use everything.
const FOUNDATION: [&str; 5] = ["clock", "seldom", "socket", "threads", "version"];

/// Files that may hold a `static`, with the reason.
const STATICS: [(&str, &str); 4] = [
    ("src/clock.rs", "the time of a runtime thread, so that a request costs one look at the clock"),
    ("src/socket.rs", "the scratch buffer of a runtime thread, shared by its sessions"),
    ("src/session/draft.rs", "the buffer of a runtime thread in which requests are put together"),
    ("src/main.rs", "the allocator, which the language wants as one"),
];

/// Files that may spawn a task without the tracker, with the reason.
const SPAWNS: [(&str, &str); 0] = [];

const MAX_LINES: usize = 700;

struct Source {
    /// Relative to the package, with slashes.
    name: String,
    text: String,
}

impl Source {
    /// The layer's position, `None` for what is on top; the foundation is below the first layer.
    fn layer(&self) -> Option<usize> {
        let inside = self.name.strip_prefix("src/")?;
        let first = inside.split('/').next()?.trim_end_matches(".rs");
        if FOUNDATION.contains(&first) {
            return Some(0);
        }
        LAYERS.iter().position(|layer| *layer == first)
    }

    /// Lines with their numbers: code only, without comments, and without items that are for tests only. What follows
    /// such an item counts again.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut of_tests: Option<usize> = None;
        let indent = |line: &str| line.len() - line.trim_start().len();
        let lines = self.text.lines().zip(1..).filter(move |(line, _)| match of_tests {
            Some(depth) => {
                let is_end = line.ends_with(';') || line.trim_end() == format!("{:depth$}}}", "");
                if indent(line) == depth && is_end {
                    of_tests = None;
                }
                false
            }
            None if line.trim() == "#[cfg(test)]" => {
                of_tests = Some(indent(line));
                false
            }
            None => true,
        });
        lines.filter(|(line, _)| !line.trim_start().starts_with("//")).map(|(line, number)| (number, line))
    }
}

#[test]
fn layers_point_upwards_only() {
    let mut wrong = String::new();
    for source in sources("src") {
        let Some(own) = source.layer() else { continue };
        let uses = source.code().flat_map(|(number, line)| crate_paths(line).map(move |path| (number, path)));
        for (number, used) in uses.chain(grouped_uses(&source)) {
            let used_layer = LAYERS.iter().position(|layer| *layer == used);
            let allowed = FOUNDATION.contains(&used.as_str()) || used_layer.is_some_and(|layer| layer <= own);
            if !allowed {
                writeln!(wrong, "{}:{number} uses crate::{used}, which is not below it", source.name)
                    .expect("text");
            }
        }
    }
    assert!(wrong.is_empty(), "dependencies point the wrong way (the order is {LAYERS:?}):\n{wrong}");
}

#[test]
fn no_statics() {
    let is_static = |line: &str| {
        let item = line.trim_start().trim_start_matches("pub(crate) ").trim_start_matches("pub ");
        item.starts_with("static ") || item.starts_with("thread_local!") || item.contains("lazy_static!")
    };
    forbid(is_static, &STATICS, "holds a static; pass an Arc of a snapshot instead");
}

#[test]
fn no_bare_spawns() {
    let is_spawn = |line: &str| line.contains("tokio::spawn(") || line.contains("tokio::task::spawn(");
    forbid(is_spawn, &SPAWNS, "spawns a task that nobody waits for; use the tracker of `shutdown`");
}

#[test]
fn every_file_says_what_it_is_and_is_short() {
    let mut wrong = String::new();
    for source in ["src", "tests", "benches"].into_iter().flat_map(sources) {
        if !source.text.starts_with("//!") {
            writeln!(wrong, "{} does not open with `//!`", source.name).expect("text");
        }
        let lines = source.text.lines().count();
        if lines > MAX_LINES {
            writeln!(wrong, "{} has {lines} lines, more than {MAX_LINES}; split it", source.name)
                .expect("text");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Fails for every line of code in `src` that is `bad`, except in files of the list.
fn forbid(bad: impl Fn(&str) -> bool, except: &[(&str, &str)], why: &str) {
    let mut wrong = String::new();
    let files = sources("src");
    for source in files.iter().filter(|source| !except.iter().any(|(file, _)| *file == source.name)) {
        for (number, line) in source.code().filter(|(_, line)| bad(line)) {
            writeln!(wrong, "{}:{number} {why}: {}", source.name, line.trim()).expect("text");
        }
    }
    for (file, reason) in except {
        if !files.iter().any(|source| source.name == *file) {
            writeln!(wrong, "{file} is excepted ({reason}) and does not exist").expect("text");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// The modules that a line names by `crate::module`.
fn crate_paths(line: &str) -> impl Iterator<Item = String> {
    line.split("crate::").skip(1).map(leading_name).filter(|name| !name.is_empty())
}

/// The modules of `use crate::{a::.., b}`, which may go over several lines.
fn grouped_uses(source: &Source) -> impl Iterator<Item = (usize, String)> {
    let mut found = Vec::new();
    let mut depth = 0_usize;
    for (number, line) in source.code() {
        let mut rest = line;
        if depth == 0 {
            let Some((_, group)) = line.split_once("use crate::{") else { continue };
            rest = group;
            depth = 1;
        }
        let mut name = String::new();
        let mut in_first = true;
        for character in rest.chars().chain(['\n']) {
            match character {
                '{' => depth += 1,
                _ if depth == 1 && in_first && (character.is_alphanumeric() || character == '_') => {
                    name.push(character);
                }
                ':' | ' ' if name.is_empty() => (),
                ':' => in_first = false,
                _ => (),
            }
            if matches!(character, ',' | '}' | '\n') && depth <= 1 {
                if !name.is_empty() {
                    found.push((number, std::mem::take(&mut name)));
                }
                in_first = true;
            }
            if character == '}' {
                depth = depth.saturating_sub(1);
            }
            if depth == 0 {
                break;
            }
        }
    }
    found.into_iter()
}

fn leading_name(text: &str) -> String {
    text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

/// All Rust files below a folder of the package; none if it does not exist.
fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = vec![root.join(folder)];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name =
                    path.strip_prefix(root).expect("inside the package").to_string_lossy().into_owned();
                found.push(Source { name, text: fs::read_to_string(&path).expect("the file is text") });
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

#[test]
fn the_checks_see_what_they_should() {
    let text = "use crate::{\n    auth::{Users, scram},\n    pool,\n};\nfn f() { crate::session::serve() }\n";
    let source = Source { name: "src/pool/mod.rs".to_owned(), text: text.to_owned() };
    let grouped: Vec<_> = grouped_uses(&source).map(|(_, name)| name).collect();
    assert_eq!(grouped, ["auth", "pool"]);
    let one_line =
        Source { name: String::new(), text: "use crate::{sql::{A, B}, wire::x, route};".to_owned() };
    assert_eq!(grouped_uses(&one_line).map(|(_, name)| name).collect::<Vec<_>>(), ["sql", "wire", "route"]);
    assert_eq!(crate_paths("fn f() { crate::session::serve() }").collect::<Vec<_>>(), ["session"]);
    assert_eq!(source.layer(), Some(6));
    let text = "a\n#[cfg(test)]\nmod tests;\nb\n#[cfg(test)]\nmod tests {\n    c\n}\nd\n";
    let source = Source { name: String::new(), text: text.to_owned() };
    let code: Vec<_> = source.code().collect();
    assert_eq!(code, [(1, "a"), (4, "b"), (9, "d")], "what follows tests counts");
}
