//! The architecture as a test: what the folders of `src` promise about each other, and what no file may do.

mod circles;
mod imports;
mod prose;
mod size;

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

/// The folders and files of `src`, each of which may use only itself and those before it. So no two of them use each
/// other.
const LAYERS: [&str; 28] = [
    "version", "clock", "seldom", "threads", "socket", "wire", "types", "metrics", "auth", "sql", "causal",
    "route", "backend", "pool", "topology", "catalog", "listen", "outbox", "shared", "session", "why",
    "console", "admin", "door", "config", "startup", "commands", "demo",
];

/// Files of `src` that are above all layers.
const TOP: [&str; 2] = ["src/lib.rs", "src/main.rs"];

/// Files that may hold a `static`, with the reason.
const STATICS: [(&str, &str); 6] = [
    ("src/clock.rs", "the time of a runtime thread, so that a request costs one look at the clock"),
    ("src/socket.rs", "the scratch buffer of a runtime thread, shared by its sessions"),
    ("src/session/thread_buffer.rs", "the buffer of a runtime thread in which requests are put together"),
    (
        "src/sql/recent.rs",
        "the texts that a runtime thread has seen lately, so that their keys are not made anew",
    ),
    (
        "src/shared/queries/front.rs",
        "the statistics that a runtime thread has counted for lately, so that it takes no lock to find them",
    ),
    ("src/main.rs", "the allocator, which the language wants as one"),
];

/// Files that may spawn a task without the tracker, with the reason.
const SPAWNS: [(&str, &str); 0] = [];

/// Files that change what a session holds, with the reason; all others are given its backend, or ask what is true of it.
const HOLDS: [(&str, &str); 3] = [
    ("src/session/checkout.rs", "a backend comes"),
    ("src/session/settle.rs", "it goes"),
    ("src/session/across.rs", "two of them change places"),
];

struct Source {
    /// Relative to the package, with slashes.
    name: String,
    text: String,
}

impl Source {
    /// The layer's position; `None` for a file that is in none.
    fn layer(&self) -> Option<usize> {
        let inside = self.name.strip_prefix("src/")?;
        let first = inside.split('/').next()?.trim_end_matches(".rs");
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

    /// Whether all of the file is for tests only.
    fn is_of_tests(&self) -> bool {
        self.name.ends_with("/tests.rs") || self.name.contains("/tests/")
    }
}

#[test]
fn layers_point_upwards_only() {
    let mut wrong = String::new();
    for source in sources("src").iter().filter(|source| !TOP.contains(&source.name.as_str())) {
        let Some(own) = source.layer() else {
            writeln!(wrong, "{} is in no layer", source.name).expect("text");
            continue;
        };
        if source.is_of_tests() {
            continue;
        }
        for import in imports::of(source) {
            let Some(used) = import.path.first() else { continue };
            let is_below = LAYERS.iter().position(|layer| layer == used).is_some_and(|layer| layer <= own);
            if !is_below {
                let (name, number) = (&source.name, import.line);
                writeln!(wrong, "{name}:{number} uses crate::{used}, which is not below it").expect("text");
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
fn nobody_asks_in_passing_whether_there_is_a_backend() {
    let looks = |line: &str| line.contains("hold.leased");
    forbid(looks, &HOLDS, "looks into the hold: take `Held` or `Leased`, or ask `Hold`");
}

#[test]
fn no_bare_spawns() {
    let is_spawn = |line: &str| line.contains("tokio::spawn(") || line.contains("tokio::task::spawn(");
    forbid(is_spawn, &SPAWNS, "spawns a task that nobody waits for; use the tracker of `threads::Spawner`");
}

/// Fails for every line of code in `src` that is `bad`, except in files of the list.
fn forbid(bad: impl Fn(&str) -> bool, except: &[(&str, &str)], why: &str) {
    let mut wrong = String::new();
    let files = sources("src");
    let is_excepted =
        |source: &&Source| source.is_of_tests() || except.iter().any(|(file, _)| *file == source.name);
    for source in files.iter().filter(|source| !is_excepted(source)) {
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

/// A file with this text.
fn source(name: &str, text: &str) -> Source {
    Source { name: name.to_owned(), text: text.to_owned() }
}

#[test]
fn code_goes_on_behind_tests() {
    let text = "a\n#[cfg(test)]\nmod tests;\nb\n#[cfg(test)]\nmod tests {\n    c\n}\nd\n";
    let code: Vec<_> = source("", text).code().map(|(number, line)| (number, line.to_owned())).collect();
    assert_eq!(code, [(1, "a".to_owned()), (4, "b".to_owned()), (9, "d".to_owned())]);
    assert_eq!(source("src/wire/frame.rs", "").layer(), LAYERS.iter().position(|layer| *layer == "wire"));
    assert_eq!(source("src/unheard_of.rs", "").layer(), None);
}
