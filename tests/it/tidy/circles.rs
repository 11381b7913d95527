//! No circles between files: of two files that know each other, neither can be read, changed or tested alone.
//!
//! A file depends on those that define what it names; through what a parent passes on (`pub use`) it is followed to where
//! that is defined. That a parent declares its submodules, passes them on and is put together of them is no circle: a
//! submodule may name what its parent defines. Calls of methods name no file, and are not seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use super::{Source, imports, source, sources};

/// Pairs of files that know each other for now, with the reason.
const EXCEPT: [(&str, &str, &str); 0] = [];

/// Which files each file depends on.
type Dependencies = BTreeMap<String, BTreeSet<String>>;

struct Modules {
    /// By their paths.
    files: BTreeMap<Vec<String>, String>,
    /// What modules pass on, by the module and the name.
    exports: BTreeMap<(Vec<String>, String), Vec<String>>,
}

impl Modules {
    fn of(sources: &[Source]) -> Self {
        let mut modules = Self { files: BTreeMap::new(), exports: BTreeMap::new() };
        for source in sources {
            let module = imports::module(&source.name);
            for import in imports::of(source) {
                if let Some(name) = import.exported {
                    modules.exports.insert((module.clone(), name), import.path);
                }
            }
            modules.files.insert(module, source.name.clone());
        }
        modules
    }

    /// The file that defines what a path names.
    fn file_of(&self, path: &[String]) -> Option<&String> {
        let mut path = path.to_vec();
        // No item is passed on more often than that.
        for _ in 0..8 {
            let depth = (0..=path.len()).rev().find(|depth| self.files.contains_key(&path[..*depth]))?;
            let (module, rest) = path.split_at(depth);
            let exported = rest.first().and_then(|name| self.exports.get(&(module.to_vec(), name.clone())));
            match exported {
                Some(origin) if *origin != path => {
                    path = [origin.as_slice(), rest.get(1..).unwrap_or_default()].concat();
                }
                _ => return self.files.get(module),
            }
        }
        None
    }
}

fn dependencies(sources: &[Source]) -> Dependencies {
    let modules = Modules::of(sources);
    let mut found = Dependencies::new();
    for source in sources.iter().filter(|source| !source.is_of_tests()) {
        let own = imports::module(&source.name);
        let used = imports::of(source).into_iter().filter_map(|import| modules.file_of(&import.path));
        let used = used.filter(|used| !imports::module(used).starts_with(&own)).cloned();
        found.entry(source.name.clone()).or_default().extend(used);
    }
    found
}

/// The shortest way from a file back to itself, if there is one.
fn circle<'d>(from: &'d str, dependencies: &'d Dependencies) -> Option<Vec<&'d str>> {
    let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut next = vec![from];
    while !next.is_empty() {
        let mut following = Vec::new();
        for file in next {
            for used in dependencies.get(file).into_iter().flatten() {
                if used == from {
                    let mut way = vec![file];
                    while let Some(before) = came_from.get(way[way.len() - 1]) {
                        way.push(before);
                    }
                    way.reverse();
                    return Some(way);
                }
                if !came_from.contains_key(used.as_str()) {
                    came_from.insert(used, file);
                    following.push(used.as_str());
                }
            }
        }
        next = following;
    }
    None
}

#[test]
fn no_file_depends_on_itself_through_others() {
    let mut dependencies = dependencies(&sources("src"));
    let mut wrong = String::new();
    for (one, other, reason) in EXCEPT {
        let knows = |one: &str, other: &str| dependencies.get(one).is_some_and(|used| used.contains(other));
        if !(knows(one, other) && knows(other, one)) {
            writeln!(wrong, "{one} and {other} are excepted ({reason}) and do not know each other")
                .expect("text");
        }
        if let Some(used) = dependencies.get_mut(one) {
            used.remove(other);
        }
    }
    let mut told = BTreeSet::new();
    for file in dependencies.keys() {
        let Some(mut circle) = circle(file, &dependencies) else { continue };
        let first = circle.iter().enumerate().min_by_key(|(_, file)| **file).map_or(0, |(at, _)| at);
        circle.rotate_left(first);
        if told.insert(circle.clone()) {
            writeln!(wrong, "{} -> {}", circle.join(" -> "), circle[0]).expect("text");
        }
    }
    assert!(wrong.is_empty(), "these files depend on themselves:\n{wrong}");
}

#[test]
fn circles_are_found_and_parents_are_none() {
    let file = |name: &str, text: &str| source(&format!("src/{name}"), text);
    let of = |sources: &[Source]| {
        let dependencies = dependencies(sources);
        dependencies
            .keys()
            .filter_map(|file| circle(file, &dependencies))
            .map(|way| way.len())
            .collect::<Vec<_>>()
    };
    let parent =
        file("pool/mod.rs", "mod a;\nmod b;\npub use a::One;\npub use b::Other;\nstruct Own(One);\n");
    let apart = [
        file("pool/mod.rs", "mod a;\nmod b;\npub use a::One;\npub use b::Other;\nstruct Own(One);\n"),
        file("pool/a.rs", "use super::Own;\npub struct One;\n"),
        file("pool/b.rs", "use super::{One, Own};\npub struct Other;\n"),
    ];
    assert_eq!(of(&apart), [0_usize; 0]);
    let tied = [
        parent,
        file("pool/a.rs", "use super::Other;\npub struct One;\n"),
        file("pool/b.rs", "fn f(_: crate::pool::One) {}\npub struct Other;\n"),
    ];
    assert_eq!(of(&tied), [2, 2], "through what the parent passes on");
}
