//! What of a database is proven to leave nothing on its backend beyond what the session carries.
//!
//! Everything is known by its last name: the worst of all objects of that name counts, in whatever schema and under
//! whatever `search_path`. What is not known, or reaches anything that is not proven, is not proven. Who reaches what
//! is a graph: the server tells the edges that its catalog knows, the bodies of functions the others.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

use super::{
    audit, functions,
    names::split_name,
    reach::{self, Reach},
    tables::Tables,
    used::Use,
};

/// The length of a name, `NAMEDATALEN` less one: the server cuts longer ones.
const NAME_BYTES: usize = 63;

/// What is known of one name, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Flags(u16);

impl Flags {
    const FUNCTION: u16 = 1;
    const RELATION: u16 = 2;
    const TYPE: u16 = 4;
    const OPERATOR: u16 = 8;
    const DOUBT_FUNCTION: u16 = 16;
    const DOUBT_READ: u16 = 32;
    const DOUBT_WRITE: u16 = 64;
    const DOUBT_TYPE: u16 = 128;
    const DOUBT_OPERATOR: u16 = 256;
    /// Proven where the text itself calls it.
    const VISIBLE: u16 = 512;

    fn has(self, flags: u16) -> bool {
        self.0 & flags != 0
    }

    /// Whether what they are of leaves nothing.
    fn prove(self, used: Use) -> bool {
        let any_row = Self::TYPE | Self::RELATION;
        // A type's or relation's name casts where it is called with one argument.
        let calls = Self::DOUBT_FUNCTION | Self::DOUBT_TYPE | Self::DOUBT_READ;
        match used {
            Use::Call => self.has(Self::FUNCTION | any_row) && !self.has(calls),
            Use::Attribute => !self.has(calls | Self::VISIBLE),
            Use::Read => self.has(Self::RELATION) && !self.has(Self::DOUBT_READ),
            Use::Write | Use::Delete => {
                self.has(Self::RELATION) && !self.has(Self::DOUBT_READ | Self::DOUBT_WRITE)
            }
            Use::Type => self.has(any_row) && !self.has(Self::DOUBT_TYPE | Self::DOUBT_READ),
            Use::Operator => self.has(Self::OPERATOR) && !self.has(Self::DOUBT_OPERATOR),
            Use::Mention => !self.has(calls | Self::DOUBT_WRITE | Self::VISIBLE),
        }
    }
}

/// Operators that the grammar or the server calls without writing them, or that are everywhere.
const CORE_OPERATORS: [&str; 15] =
    ["=", "<>", "<", "<=", ">", ">=", "~~", "!~~", "~~*", "!~~*", "~", "+", "-", "*", "||"];

/// What is proven of one database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent facts of a database")]
pub(super) struct Proof {
    loaded: bool,
    names: HashMap<Box<str>, Flags, RandomState>,
    types: HashMap<u32, Box<str>, RandomState>,
    /// An operator that is everywhere is not proven.
    core_doubt: bool,
    /// There is an event trigger.
    ddl_doubt: bool,
    /// Users have a function of the name `set_config`.
    own_set_config: bool,
    /// Functions are written in languages, or come from libraries, that may keep state which DISCARD ALL does not end.
    outlives_discard: bool,
    /// Which tables each name reaches.
    reach: Reach,
}

impl Proof {
    /// Whether nothing that runs an expression is proven at all.
    pub(super) fn proves_nothing(&self) -> bool {
        !self.loaded || self.core_doubt
    }

    /// Whether users have a function of the name `set_config`.
    pub(super) fn has_own_set_config(&self) -> bool {
        self.own_set_config
    }

    /// Whether there are functions that may keep state which DISCARD ALL does not end.
    pub(super) fn outlives_discard(&self) -> bool {
        self.outlives_discard
    }

    /// Whether statements that define things are proven, if what they name is.
    pub(super) fn proves_definitions(&self) -> bool {
        self.loaded && !self.ddl_doubt
    }

    /// Whether what goes by this name leaves nothing.
    pub(super) fn proves(&self, name: &str, used: Use) -> bool {
        if name.len() > NAME_BYTES || !self.loaded {
            return false;
        }
        self.flags(name).prove(used)
    }

    /// The tables that a statement reaches by this name, if it is proven.
    pub(super) fn tables(&self, name: &str, used: Use) -> Tables {
        self.reach.tables(name, used)
    }

    /// The tables that operators reach which no text has to name.
    pub(super) fn core_tables(&self) -> Tables {
        self.reach.core()
    }

    /// The same, with a relation and its row type of this name that run no code.
    pub(super) fn proves_added(&self, name: &str, used: Use) -> bool {
        name.len() <= NAME_BYTES && self.loaded && Flags(self.flags(name).0 | Flags::RELATION).prove(used)
    }

    fn flags(&self, name: &str) -> Flags {
        self.names.get(name).copied().unwrap_or_default()
    }

    /// Whether two proofs differ in nothing but which relations and types there are: of each name, the same is in doubt.
    pub(super) fn differs_in_proven_relations(&self, other: &Self) -> bool {
        let rest = |flags: Flags| flags.0 & !(Flags::RELATION | Flags::TYPE);
        let is_in = |one: &Self, other: &Self| {
            one.names.iter().all(|(name, flags)| rest(*flags) == rest(other.flags(name)))
        };
        (self.loaded, self.core_doubt, self.ddl_doubt) == (other.loaded, other.core_doubt, other.ddl_doubt)
            && (self.own_set_config, self.outlives_discard) == (other.own_set_config, other.outlives_discard)
            && is_in(self, other)
            && is_in(other, self)
    }

    /// Whether the function of this name is seen only where the text itself calls it.
    pub(super) fn is_visible(&self, name: &str) -> bool {
        self.names.get(name).is_some_and(|flags| flags.has(Flags::VISIBLE))
    }

    /// Whether a function of this name is known not to be proven.
    pub(super) fn is_in_doubt(&self, name: &str) -> bool {
        self.names.get(name).is_some_and(|flags| flags.has(Flags::DOUBT_FUNCTION))
    }

    /// Whether there is a function, type or relation of this name.
    pub(super) fn knows(&self, name: &str) -> bool {
        let any = Flags::FUNCTION | Flags::TYPE | Flags::RELATION;
        self.names.get(name).is_some_and(|flags| flags.has(any))
    }

    /// Whether a parameter of the type with this id is proven. Built-in types are.
    pub(super) fn proves_type_id(&self, id: u32) -> bool {
        id < 16384 || self.types.get(&id).is_some_and(|name| self.proves(name, Use::Type))
    }

    fn flag(&mut self, name: &str, flag: u16) {
        if let Some(flags) = self.names.get_mut(name) {
            flags.0 |= flag;
        } else {
            self.names.insert(name.into(), Flags(flag));
        }
    }
}

// === from rows ===

/// The body of a function.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) name: Box<str>,
    /// Of which language, or kind: see `proof_head.sql`.
    language: Box<str>,
    source: Box<str>,
}

/// Letters of nodes: see `proof_head.sql`.
type Node = (u8, Box<str>);

/// The rows so far.
#[derive(Debug, Default)]
pub(super) struct Builder {
    proof: Proof,
    ids: HashMap<Node, u32, RandomState>,
    /// From whom it is reached, to whom reaches it.
    edges: Vec<(u32, u32)>,
    reach: reach::Rows,
    doubted: Vec<u32>,
    bodies: Vec<Body>,
    /// Built-in functions that are volatile.
    volatile: Vec<Box<str>>,
}

impl Builder {
    /// Takes a row; `false` if it is none of a proof's.
    pub(super) fn add(&mut self, kind: &str, name: &str) -> bool {
        let (kind, rest) = kind.split_once(' ').unwrap_or((kind, ""));
        match kind {
            "known" if rest == "pg_" => self.reach.own_pg(name),
            "known" => {
                let flag = match rest {
                    "relation" => Flags::RELATION,
                    "type" => Flags::TYPE,
                    "operator" => Flags::OPERATOR,
                    _ => return false,
                };
                self.proof.flag(name, flag);
            }
            "oid" => {
                if let Ok(id) = rest.parse() {
                    self.proof.types.insert(id, name.into());
                }
            }
            "reach" => self.reach(rest, name),
            "heir" => self.heir(name),
            "refers" => self.refers(rest, name),
            "doubt" if rest == "ddl" => self.proof.ddl_doubt = true,
            "doubt" => self.doubt(rest.bytes().next().unwrap_or_default(), name),
            "body" => {
                let Some((name, source)) = split_name(name) else { return true };
                let source = source.strip_prefix(' ').unwrap_or(source).into();
                self.id(b'f', &name);
                // Of other languages, or of libraries that are not audited.
                self.proof.outlives_discard |= rest == "other"
                    || rest.strip_prefix("of ").is_some_and(|from| !audit::knows_extension(from));
                self.bodies.push(Body { name: name.into(), language: rest.into(), source });
            }
            _ => return false,
        }
        true
    }

    /// There is a function of this name, perhaps one of users, perhaps a built-in one that is volatile.
    pub(super) fn function(&mut self, name: &str, of_users: bool, is_built_volatile: bool) {
        self.proof.flag(name, Flags::FUNCTION);
        self.proof.own_set_config |= of_users && name == "set_config";
        let has_body = || self.ids.contains_key(&(b'f', Box::from(name)));
        if of_users && !has_body() {
            self.doubt(b'f', name);
        }
        if functions::changes(name) {
            // Who reaches it is asked for.
            self.id(b'f', name);
        }
        if is_built_volatile {
            self.volatile.push(name.into());
        }
    }

    fn id(&mut self, letter: u8, name: &str) -> u32 {
        let next = self.ids.len() as u32;
        let id = *self.ids.entry((letter, name.into())).or_insert(next);
        if id == next && letter == b'w' {
            // Who writes reads.
            let read = self.id(b'r', name);
            self.edges.push((read, id));
        }
        id
    }

    fn reach(&mut self, letters: &str, names: &str) {
        let (Some((from, to)), &[from_letter, to_letter]) = (two_names(names), letters.as_bytes()) else {
            return;
        };
        self.reach.edge((from_letter, &from), (to_letter, &to));
        self.edge((from_letter, &from), (to_letter, &to));
    }

    fn edge(&mut self, (from_letter, from): (u8, &str), (to_letter, to): (u8, &str)) {
        let (from, to) = (self.id(from_letter, from), self.id(to_letter, to));
        self.edges.push((to, from));
    }

    /// Of a parent and its heir, or a partition.
    fn heir(&mut self, names: &str) {
        let Some((parent, heir)) = two_names(names) else { return };
        self.reach.heir(&parent, &heir);
        for letter in *b"rw" {
            self.edge((letter, &parent), (letter, &heir));
        }
    }

    /// Of a relation with a foreign key, and the one that it refers to.
    fn refers(&mut self, actions: &str, names: &str) {
        let Some((referring, referred)) = two_names(names) else { return };
        self.reach.foreign_key(&referring, &referred, actions);
        // A write cascades to those that refer to it, and theirs look at it.
        self.edge((b'w', &referred), (b'w', &referring));
        self.edge((b'r', &referring), (b'r', &referred));
    }

    /// Whoever uses it is not proven.
    pub(super) fn doubt(&mut self, letter: u8, name: &str) {
        let id = self.id(letter, name);
        self.doubted.push(id);
    }

    /// What is known so far, without what follows from it; and the bodies that are still to be judged.
    pub(super) fn known(&mut self) -> (Proof, Vec<Body>) {
        audit::names(audit::RISKY).for_each(|name| self.doubt(b'f', name));
        // It shows what other sessions have prepared: whatever reads it is given a connection without that.
        self.doubt(b'r', "pg_prepared_statements");
        audit::names(audit::VISIBLE).for_each(|name| self.proof.flag(name, Flags::VISIBLE));
        let audited: HashSet<&str> =
            [audit::HARMLESS, audit::VISIBLE].into_iter().flat_map(audit::names).collect();
        for name in std::mem::take(&mut self.volatile) {
            if !audited.contains(&*name) {
                self.doubt(b'f', &name);
            }
        }
        self.proof.loaded = true;
        (self.proof.clone(), std::mem::take(&mut self.bodies))
    }

    /// The function of this name uses another thing.
    pub(super) fn uses(&mut self, function: &str, name: &str, used: Use) {
        self.reach.uses(function, name, used);
        let from = self.id(b'f', function);
        let letters: &[u8] = match used {
            Use::Call | Use::Attribute => b"ftr",
            Use::Mention => b"ftrw",
            Use::Read => b"r",
            Use::Write | Use::Delete => b"w",
            Use::Type => b"tr",
            Use::Operator => b"o",
        };
        for &letter in letters {
            // A relation that is known may have a node for what reads it alone.
            let letter = if letter == b'w' && !self.ids.contains_key(&(b'w', Box::from(name))) {
                b'r'
            } else {
                letter
            };
            if let Some(&to) = self.ids.get(&(letter, Box::from(name))) {
                self.edges.push((to, from));
            }
        }
    }

    /// Finds what may change something by the body of a function, though that is declared not to: letters and names of what reaches one
    /// whose body reaches, in turn, something of which `changes` is true. The server holds such a function to nothing: within it,
    /// a volatile one writes.
    pub(super) fn wrappers(&self, changes: impl Fn(u8, &str) -> bool) -> Vec<(u8, Box<str>)> {
        let named: HashMap<u32, &Node> = self.ids.iter().map(|(node, id)| (*id, node)).collect();
        let reached_by = self.reached_by(|id| named[&id].0 != b'w');
        let declared: Vec<u32> =
            self.ids.iter().filter(|((letter, name), _)| changes(*letter, name)).map(|(_, id)| *id).collect();
        let changing = closure(&reached_by, declared.clone());
        // The catalog tells what reaches a declared one: only what goes through a function's body is new.
        let is_wrapper = |id: &u32| named[id].0 == b'f' && changing[*id as usize] && !declared.contains(id);
        let wrappers = closure(&reached_by, named.keys().copied().filter(is_wrapper).collect());
        named.into_iter().filter(|(id, _)| wrappers[*id as usize]).map(|(_, node)| node.clone()).collect()
    }

    /// From whom each node is reached that `counts`.
    fn reached_by(&self, counts: impl Fn(u32) -> bool) -> Vec<Vec<u32>> {
        let mut reached_by: Vec<Vec<u32>> = vec![Vec::new(); self.ids.len()];
        for &(to, from) in self.edges.iter().filter(|(to, from)| counts(*to) && counts(*from)) {
            reached_by[to as usize].push(from);
        }
        reached_by
    }

    /// Draws all conclusions.
    pub(super) fn finish(mut self) -> Proof {
        let reached_by = self.reached_by(|_| true);
        let in_doubt = closure(&reached_by, std::mem::take(&mut self.doubted));
        let mut proof = self.proof;
        for ((letter, name), id) in self.ids {
            let flag = match letter {
                _ if !in_doubt[id as usize] => continue,
                b'f' => Flags::DOUBT_FUNCTION,
                b'r' => Flags::DOUBT_READ,
                b'w' => Flags::DOUBT_WRITE,
                b't' => Flags::DOUBT_TYPE,
                b'o' => Flags::DOUBT_OPERATOR,
                _ => continue,
            };
            proof.flag(&name, flag);
        }
        proof.reach = self.reach.finish(&CORE_OPERATORS, |name| proof.flags(name).has(Flags::RELATION));
        proof.core_doubt = CORE_OPERATORS
            .iter()
            .any(|name| proof.names.get(*name).is_some_and(|flags| flags.has(Flags::DOUBT_OPERATOR)));
        proof
    }
}

/// Which nodes reach one of these.
fn closure(reached_by: &[Vec<u32>], mut stack: Vec<u32>) -> Vec<bool> {
    let mut is_in = vec![false; reached_by.len()];
    while let Some(id) = stack.pop() {
        if !std::mem::replace(&mut is_in[id as usize], true) {
            stack.extend_from_slice(&reached_by[id as usize]);
        }
    }
    is_in
}

/// Two names as `quote_ident` writes them.
fn two_names(names: &str) -> Option<(String, String)> {
    let (one, rest) = split_name(names)?;
    let (other, _) = split_name(&format!("{} ", rest.trim_start()))?;
    Some((one, other))
}

impl Body {
    /// Of which language it is, and its source; `None` if it is proven or not without being read.
    pub(super) fn source(&self) -> Source<'_> {
        match &*self.language {
            "tree" => Source::Proven,
            "sql" => Source::Sql(&self.source),
            "plpgsql" => Source::PlPgSql(&self.source),
            other => match other.strip_prefix("of ") {
                Some(extension) if audit::is_harmless_of_extension(extension, &self.name) => Source::Proven,
                _ => Source::Unproven,
            },
        }
    }
}

/// What is to be read of a body.
#[derive(Debug)]
pub(super) enum Source<'b> {
    /// Nothing: what it reaches is known.
    Proven,
    /// Nothing: it may do anything.
    Unproven,
    Sql(&'b str),
    PlPgSql(&'b str),
}
