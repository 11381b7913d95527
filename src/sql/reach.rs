//! Which tables a name reaches: through views, rules, policies, triggers, functions, heirs, and foreign keys that
//! cascade.
//!
//! A second graph beside the one of proofs (`proof`), of the same rows: there it counts what may run, here whose rows are
//! read or changed. What is not proven reaches all tables, whatever this graph says.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

use super::{tables::Tables, used::Use};

/// A letter (see `proof_head.sql`, and `d` for rows that are deleted) and a name.
type Node = (u8, Box<str>);

/// The tables that names reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    /// Of names of relations that are heirs or have some: the name that stands for all of them.
    families: HashMap<Box<str>, Box<str>, RandomState>,
    /// Relations of users whose names begin with `pg_`: only schemas of that kind are the server's own.
    own_pg: HashSet<Box<str>, RandomState>,
    /// What operators reach that are everywhere.
    core: Tables,
    /// Only what reaches more than its own name.
    nodes: HashMap<Box<str>, Vec<(u8, Tables)>, RandomState>,
}

impl Reach {
    /// The tables that a statement reaches which uses this name so.
    pub(super) fn tables(&self, name: &str, used: Use) -> Tables {
        let own = match used {
            // Those of the server do not follow what clients write.
            Use::Read | Use::Write | Use::Delete
                if name.starts_with("pg_") && !self.own_pg.contains(name) =>
            {
                Tables::NONE
            }
            Use::Read | Use::Write | Use::Delete => Tables::named(self.family(name)),
            _ => Tables::NONE,
        };
        let Some(nodes) = self.nodes.get(name) else { return own };
        let letters = letters(used);
        let reached = nodes.iter().filter(|(letter, _)| letters.contains(letter));
        reached.fold(own, |all, (_, tables)| all.with(*tables))
    }

    /// The tables that operators reach which no text has to name.
    pub(super) fn core(&self) -> Tables {
        self.core
    }

    fn family<'a>(&'a self, name: &'a str) -> &'a str {
        self.families.get(name).map_or(name, |family| family)
    }
}

/// The nodes that a use may reach. A relation's name is a type, too, and a function's may be a type's.
fn letters(used: Use) -> &'static [u8] {
    match used {
        Use::Call | Use::Attribute => b"ftr",
        Use::Mention => b"ftrwd",
        Use::Read => b"r",
        Use::Write => b"rw",
        Use::Delete => b"rwd",
        Use::Type => b"tr",
        Use::Operator => b"o",
    }
}

/// The rows so far.
#[derive(Debug, Default)]
pub(super) struct Rows {
    ids: HashMap<Node, u32, RandomState>,
    /// From whom it is reached, to whom reaches it.
    edges: Vec<(u32, u32)>,
    /// Parents and their heirs.
    heirs: Vec<(Box<str>, Box<str>)>,
    own_pg: HashSet<Box<str>, RandomState>,
}

impl Rows {
    /// Whoever uses the first may use the second.
    pub(super) fn edge(&mut self, (from_letter, from): (u8, &str), (to_letter, to): (u8, &str)) {
        let from_id = self.id(from_letter, from);
        // What a rule or function does to what it writes is not told.
        let to_letter = if to_letter == b'w' { b'd' } else { to_letter };
        let to = self.id(to_letter, to);
        self.edges.push((to, from_id));
    }

    /// A relation of users has this name, which begins with `pg_`.
    pub(super) fn own_pg(&mut self, name: &str) {
        self.own_pg.insert(name.into());
    }

    /// The rows of one are among those of the other.
    pub(super) fn heir(&mut self, parent: &str, heir: &str) {
        self.heirs.push((parent.into(), heir.into()));
        for letter in *b"rwd" {
            let (parent, heir) = (self.id(letter, parent), self.id(letter, heir));
            self.edges.push((heir, parent));
        }
    }

    /// A foreign key; `actions` are what it does on DELETE and on UPDATE (`confdeltype`, `confupdtype` of
    /// `pg_constraint`).
    pub(super) fn foreign_key(&mut self, referring: &str, referred: &str, actions: &str) {
        let mut actions = actions.bytes();
        let (on_delete, on_update) = (actions.next(), actions.next());
        let acts = |action: Option<u8>| !matches!(action, Some(b'a' | b'r'));
        if acts(on_delete) {
            let letter = if on_delete == Some(b'c') { b'd' } else { b'w' };
            let (from, to) = (self.id(b'd', referred), self.id(letter, referring));
            self.edges.push((to, from));
        }
        if acts(on_update) {
            let (from, to) = (self.id(b'w', referred), self.id(b'w', referring));
            self.edges.push((to, from));
        }
    }

    /// The function of this name uses another thing.
    pub(super) fn uses(&mut self, function: &str, name: &str, used: Use) {
        let from = self.id(b'f', function);
        for letter in letters(used) {
            let to = self.id(*letter, name);
            self.edges.push((to, from));
        }
    }

    fn id(&mut self, letter: u8, name: &str) -> u32 {
        let next = self.ids.len() as u32;
        let id = *self.ids.entry((letter, name.into())).or_insert(next);
        if id == next && matches!(letter, b'w' | b'd') {
            // Who writes reads, and who deletes is who writes.
            let less = self.id(if letter == b'd' { b'w' } else { b'r' }, name);
            self.edges.push((less, id));
        }
        id
    }

    /// Draws all conclusions; `core` are operators that are everywhere, `is_relation` tells which names are those of relations.
    pub(super) fn finish(self, core: &[&str], is_relation: impl Fn(&str) -> bool) -> Reach {
        let families = families(&self.heirs);
        let mut reach =
            Reach { families, own_pg: self.own_pg, core: Tables::NONE, nodes: HashMap::default() };
        let mut reached_by: Vec<Vec<u32>> = vec![Vec::new(); self.ids.len()];
        for &(to, from) in &self.edges {
            reached_by[to as usize].push(from);
        }
        let mut tables = vec![Tables::NONE; self.ids.len()];
        let mut stack = Vec::new();
        for ((letter, name), id) in &self.ids {
            let own = match letter {
                b'r' | b'w' | b'd' if is_relation(name) => Tables::named(reach.family(name)),
                b'f' | b't' if asks_definitions(name) => definitions(),
                _ => continue,
            };
            tables[*id as usize] = own;
            stack.push(*id);
        }
        // Each set grows a few times at most, then it is all tables.
        while let Some(id) = stack.pop() {
            let of_this = tables[id as usize];
            for &from in &reached_by[id as usize] {
                let both = tables[from as usize].with(of_this);
                if both != tables[from as usize] {
                    tables[from as usize] = both;
                    stack.push(from);
                }
            }
        }
        for ((letter, name), id) in self.ids {
            let tables = tables[id as usize];
            if !tables.is_empty() && tables != Tables::named(reach.family(&name)) {
                reach.nodes.entry(name).or_default().push((letter, tables));
            }
        }
        reach.core = core.iter().fold(Tables::NONE, |all, name| all.with(reach.tables(name, Use::Operator)));
        reach.nodes.values_mut().for_each(|nodes| nodes.sort_unstable_by_key(|(letter, _)| *letter));
        reach
    }
}

/// Stands for which relations and schemas there are: those who make one or take one away change it, besides its own name.
pub(super) fn definitions() -> Tables {
    // No table can have this name.
    Tables::named("")
}

/// Whether the answer of a function, or a value of a type, of this name may tell which relations and schemas there are.
pub(super) fn asks_definitions(name: &str) -> bool {
    ["pg_", "to_reg", "reg", "has_"].iter().any(|prefix| name.starts_with(prefix))
        || name.ends_with("_description")
        || matches!(name, "format_type" | "current_schema" | "current_schemas" | "row_security_active")
}

/// Of each name that is an heir's or parent's: the first name of all that it is related to.
fn families(heirs: &[(Box<str>, Box<str>)]) -> HashMap<Box<str>, Box<str>, RandomState> {
    let mut families: HashMap<Box<str>, Box<str>, RandomState> = HashMap::default();
    let mut related: HashMap<&str, Vec<&str>, RandomState> = HashMap::default();
    for (parent, heir) in heirs {
        related.entry(parent).or_default().push(heir);
        related.entry(heir).or_default().push(parent);
    }
    let mut names: Vec<&str> = related.keys().copied().collect();
    names.sort_unstable();
    for first in names {
        let mut stack = vec![first];
        while let Some(name) = stack.pop() {
            if !families.contains_key(name) {
                families.insert(name.into(), first.into());
                stack.extend(&related[name]);
            }
        }
    }
    families
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(names: &[&str]) -> Tables {
        names.iter().fold(Tables::NONE, |all, name| all.with(Tables::named(name)))
    }

    /// As sets: the order in which slots come does not matter.
    fn same(one: Tables, other: Tables) -> bool {
        let sorted = |tables: Tables| {
            let mut slots: Vec<u16> = tables.slots().collect();
            slots.sort_unstable();
            slots
        };
        one.is_all() == other.is_all() && sorted(one) == sorted(other)
    }

    #[test]
    fn names_reach_tables() {
        let mut rows = Rows::default();
        rows.edge((b'r', "view"), (b'r', "orders"));
        rows.edge((b'w', "orders"), (b'f', "audits"));
        rows.uses("audits", "log", Use::Write);
        rows.foreign_key("orders", "users", "ca");
        rows.foreign_key("notes", "users", "aa");
        rows.heir("events", "events_2026");
        rows.heir("events", "events_2027");
        rows.edge((b'f', "recent"), (b'r', "events_2026"));
        let known = ["view", "orders", "log", "users", "notes", "events", "events_2026", "events_2027"];
        let reach = rows.finish(&[], |name| known.contains(&name));
        for (name, used, tables) in [
            ("view", Use::Read, all(&["view", "orders"])),
            ("orders", Use::Read, all(&["orders"])),
            ("orders", Use::Write, all(&["orders", "log"])),
            ("users", Use::Write, all(&["users"])),
            ("users", Use::Delete, all(&["users", "orders", "log"])),
            ("users", Use::Read, all(&["users"])),
            ("notes", Use::Write, all(&["notes"])),
            ("events_2026", Use::Write, all(&["events"])),
            ("events", Use::Read, all(&["events"])),
            ("events_2027", Use::Read, all(&["events"])),
            ("recent", Use::Call, all(&["events"])),
            ("recent", Use::Attribute, all(&["events"])),
            ("lower", Use::Call, Tables::NONE),
            ("=", Use::Operator, Tables::NONE),
            ("unknown", Use::Read, all(&["unknown"])),
        ] {
            let found = reach.tables(name, used);
            assert!(same(found, tables), "{name} {used:?}: {found:?}, not {tables:?}");
        }
    }

    #[test]
    fn what_reaches_many_reaches_all() {
        let mut rows = Rows::default();
        let names: Vec<String> = (0..12).map(|at| format!("t{at}")).collect();
        for name in &names {
            rows.edge((b'r', "wide"), (b'r', name));
        }
        assert!(rows.finish(&[], |_| true).tables("wide", Use::Read).is_all());
    }

    #[test]
    fn partitions_are_one_table() {
        let mut rows = Rows::default();
        let names: Vec<String> = (0..1000).map(|at| format!("p{at}")).collect();
        for name in &names {
            rows.heir("parted", name);
        }
        let reach = rows.finish(&[], |_| true);
        assert_eq!(reach.tables("parted", Use::Write), reach.tables("p999", Use::Read));
        assert_eq!(reach.tables("parted", Use::Delete).slots().count(), 1);
    }
}
