//! What a file of `src` uses: the paths of its `use` items and those in its code, from the crate's root on.

use super::{Source, source};

/// A path that a file names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Import {
    /// The line that its item begins on.
    pub(super) line: usize,
    /// Modules and items from the crate's root on.
    pub(super) path: Vec<String>,
    /// The name by which others find it in this module, if it is passed on (`pub use`).
    pub(super) exported: Option<String>,
}

/// The module that a file holds, from the crate's root on.
pub(super) fn module(name: &str) -> Vec<String> {
    let inside = name.trim_start_matches("src/").trim_end_matches(".rs");
    let mut path: Vec<String> = inside.split('/').map(str::to_owned).collect();
    if path.last().is_some_and(|last| last == "mod" || last == "lib") {
        path.pop();
    }
    path
}

/// Everything of the crate's own that the code of a file names by `crate::`, `super::` or `self::`, and what it passes
/// on of its submodules. Other paths begin with a submodule or a library.
pub(super) fn of(source: &Source) -> Vec<Import> {
    let own = module(&source.name);
    let mut found = Vec::new();
    let mut item: Option<(usize, String)> = None;
    for (line, text) in source.code() {
        let text = text.split(" // ").next().unwrap_or(text);
        let bare = text.trim_start();
        let is_use = bare.starts_with("use ") || (bare.starts_with("pub") && bare.contains(" use "));
        match &mut item {
            Some((_, whole)) => whole.push_str(text),
            None if is_use => item = Some((line, text.to_owned())),
            None => {
                let paths = inline_paths(text).into_iter().filter_map(|path| absolute(&own, &path, false));
                found.extend(paths.map(|path| Import { line, path, exported: None }));
            }
        }
        if let Some((line, whole)) = item.take_if(|(_, whole)| whole.contains(';')) {
            found.extend(of_item(line, &whole, &own));
        }
    }
    found
}

/// The paths of one `use` item.
fn of_item(line: usize, item: &str, own: &[String]) -> Vec<Import> {
    let (before, tree) = item.split_once("use ").unwrap_or_default();
    let is_export = before.trim_start().starts_with("pub");
    let tree = tree.split(';').next().unwrap_or_default();
    let leaves = leaves(tree).into_iter();
    leaves
        .filter_map(|leaf| {
            let (path, alias) = leaf.split_once(" as ").unwrap_or((&leaf, ""));
            let path = absolute(own, path, is_export)?;
            let name = if alias.is_empty() { path.last()?.clone() } else { alias.trim().to_owned() };
            Some(Import { line, path, exported: is_export.then_some(name) })
        })
        .collect()
}

/// `a::{b, c::{self, d}}` as `a::b`, `a::c`, `a::c::d`.
fn leaves(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((before, inside)) = tree.split_once('{') else { return vec![tree.to_owned()] };
    let inside = inside.trim_end().trim_end_matches('}');
    let mut parts = vec![String::new()];
    let mut depth = 0;
    for character in inside.chars() {
        depth += i32::from(character == '{') - i32::from(character == '}');
        if character == ',' && depth == 0 {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(character);
        }
    }
    let balanced = |part: String| {
        let open = part.matches('{').count() - part.matches('}').count().min(part.matches('{').count());
        part + &"}".repeat(open)
    };
    let leaves =
        parts.into_iter().filter(|part| !part.trim().is_empty()).flat_map(|part| leaves(&balanced(part)));
    leaves
        .map(|leaf| match leaf.as_str() {
            "self" => before.trim().trim_end_matches("::").to_owned(),
            leaf => format!("{}{leaf}", before.trim()),
        })
        .collect()
}

/// Paths in code that begin with `crate` or `super`.
fn inline_paths(line: &str) -> Vec<String> {
    let is_of_name = |character: char| character.is_alphanumeric() || character == '_';
    let mut found = Vec::new();
    for root in ["crate::", "super::"] {
        for (at, _) in line.match_indices(root) {
            // `super::super::` is one path, and `xcrate::` none.
            if !line[..at].ends_with(|before| is_of_name(before) || before == ':') {
                let path = line[at..].chars().take_while(|next| is_of_name(*next) || *next == ':');
                found.push(path.collect());
            }
        }
    }
    found
}

/// A path from the crate's root on. `None` for one that begins with a library or, unless it is passed on, a submodule.
fn absolute(own: &[String], path: &str, is_export: bool) -> Option<Vec<String>> {
    let mut names = path.split("::").map(str::trim).filter(|name| !name.is_empty()).peekable();
    let mut from = match names.peek()? {
        &"crate" => Vec::new(),
        &"self" | &"super" => own.to_vec(),
        _ if is_export => own.to_vec(),
        _ => return None,
    };
    while let Some(root) = names.next_if(|name| ["crate", "self", "super"].contains(name)) {
        if root == "super" {
            from.pop();
        }
    }
    from.extend(names.map(str::to_owned));
    Some(from)
}

#[test]
fn paths_are_found_in_items_and_in_code() {
    let text = "pub use own::{One, Two as Other};\nuse std::fmt;\nuse crate::{\n    auth::{Users, scram::{self, Proof}},\n    \
                pool,\n};\nuse super::lease::Lease;\nfn f() { crate::session::serve(); xcrate::no(); }\n\
                // crate::not::this\n#[cfg(test)]\nmod tests {\n    use crate::admin::No;\n}\nfn g(_: super::super::route::Target) {}\n";
    let found = of(&source("src/pool/keeper.rs", text));
    let paths: Vec<String> = found.iter().map(|import| import.path.join("::")).collect();
    assert_eq!(
        paths,
        [
            "pool::keeper::own::One",
            "pool::keeper::own::Two",
            "auth::Users",
            "auth::scram",
            "auth::scram::Proof",
            "pool",
            "pool::lease::Lease",
            "session::serve",
            "route::Target"
        ]
    );
    let lines: Vec<usize> = found.iter().map(|import| import.line).collect();
    assert_eq!(lines, [1, 1, 3, 3, 3, 3, 7, 8, 14]);
    assert_eq!(found[1].exported.as_deref(), Some("Other"));
    assert_eq!(module("src/backend/mod.rs"), ["backend"]);
    assert!(module("src/lib.rs").is_empty());
}
