//! Which names are job objects: presets and globs, compiled.
//!
//! Names arrive as the parser folds them; matching ignores case nevertheless, as quoted spellings of a
//! library's own tables differ only by mistake.

use super::{
    glob::Glob,
    outgoing::Outgoing,
    presets::{self, Preset, Relayed},
    tags::Tags,
    verdict::Hint,
};

/// A preset that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct UnknownPreset {
    /// The name as given.
    pub name: String,
    /// A name that exists and is spelt nearly so.
    pub suggestion: Option<&'static str>,
}

impl std::fmt::Display for UnknownPreset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "there is no job preset {:?}", self.name)?;
        match self.suggestion {
            Some(name) => write!(f, "; did you mean {name:?}?"),
            None => write!(f, "; known are {}", Rules::preset_names().collect::<Vec<_>>().join(", ")),
        }
    }
}

/// Globs (`*` and `?`) on folded identifiers, in addition to the presets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Custom {
    /// Schemas: any object qualified by one of them.
    pub schemas: Vec<String>,
    /// Tables, and with them their indexes and sequences by the names that PostgreSQL gives them.
    pub tables: Vec<String>,
    /// Functions.
    pub functions: Vec<String>,
    /// Channels of LISTEN and NOTIFY.
    pub channels: Vec<String>,
}

/// What kind of object a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Object {
    Relation,
    Function,
    Type,
    /// Any kind: in definitions and in literals the kind is not known.
    Any,
}

/// What a job object is called, and which pools a hint may name.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Pools that a hint may name; [`Hint::Pool`](super::Hint) is a position in this list.
    pub pools: Vec<String>,
    /// Tags in comments by which statements of workers are known.
    pub worker_tags: Tags,
    schemas: Vec<Glob>,
    in_schemas: Vec<Glob>,
    tables: Vec<Glob>,
    functions: Vec<Glob>,
    types: Vec<Glob>,
    indexes: Vec<Glob>,
    channels: Vec<Glob>,
    outgoing: Vec<Outgoing>,
}

impl Rules {
    /// Compiles presets and custom globs.
    ///
    /// `schemas` are those that the presets' tables live in besides `public` (Oban's `prefix`). For presets
    /// that own a schema (`pg_boss`) they are that schema under another name, unless a preset that goes by
    /// names is enabled as well: then a schema given here may hold anything.
    pub fn new(
        presets: &[String],
        schemas: &[String],
        custom: &Custom,
        pools: Vec<String>,
    ) -> Result<Self, UnknownPreset> {
        let presets = resolve(presets)?;
        let mut in_schemas = vec!["public".to_owned()];
        in_schemas.extend_from_slice(schemas);
        let mut rules = Self { pools, in_schemas: globs(&in_schemas), ..Self::default() };
        for preset in &presets {
            rules.add(preset, &in_schemas);
            rules.add_outgoing(preset, &in_schemas);
        }
        if !presets.is_empty() && presets.iter().all(|preset| !preset.schemas.is_empty()) {
            rules.schemas.extend(globs(schemas));
        }
        rules.schemas.extend(globs(&custom.schemas));
        rules.functions.extend(globs(&custom.functions));
        rules.channels.extend(globs(&custom.channels));
        rules.add_tables(&custom.tables);
        Ok(rules)
    }

    /// Every preset there is.
    pub fn preset_names() -> impl Iterator<Item = &'static str> {
        presets::PRESETS.iter().map(|preset| preset.name)
    }

    /// Whether any rule could match at all.
    pub fn is_empty(&self) -> bool {
        [&self.schemas, &self.tables, &self.functions, &self.types, &self.channels]
            .iter()
            .all(|globs| globs.is_empty())
    }

    fn add(&mut self, preset: &Preset, in_schemas: &[String]) {
        self.schemas.extend(globs(preset.schemas));
        self.functions.extend(globs(preset.functions));
        self.types.extend(globs(preset.types));
        self.indexes.extend(globs(preset.indexes));
        self.add_tables(preset.tables);
        for channel in preset.channels {
            for schema in in_schemas {
                self.channels.push(Glob::new(&channel.replace("{schema}", schema)));
            }
        }
    }

    fn add_outgoing(&mut self, preset: &Preset, in_schemas: &[String]) {
        let presets::Outbox { relayed, enqueues, defines, mirrored } = preset.outbox;
        if relayed.is_empty() {
            return;
        }
        let by_name = preset.schemas.is_empty();
        let mut schemas = globs(preset.schemas);
        // A library that owns a schema lives nowhere else, but it may be called something else.
        schemas.extend(globs(if by_name { in_schemas } else { &in_schemas[1..] }));
        self.outgoing.push(Outgoing { schemas, by_name, relayed, enqueues, defines, mirrored });
    }

    /// Tables that are written on the primary and moved to the job database from there, if there is an outbox.
    pub fn outgoing(&self) -> &[Outgoing] {
        &self.outgoing
    }

    /// Whether what is inserted into this table, perhaps qualified, can be moved to the job database.
    pub fn is_relayed(&self, schema: Option<&str>, table: &str) -> bool {
        self.relayed(schema, table).is_some()
    }

    /// The preset's word on a table, perhaps qualified, whose rows can be moved.
    pub fn relayed(&self, schema: Option<&str>, table: &str) -> Option<&'static Relayed> {
        self.outgoing.iter().filter(|of| of.may_be_in(schema)).find_map(|of| of.relayed(table))
    }

    /// Whether rows that are moved name rows of this table: what it has on the primary waits for nothing.
    pub fn is_parent(&self, schema: &str, table: &str) -> bool {
        self.outgoing.iter().any(|of| of.is_in(schema) && of.is_parent(table))
    }

    /// Whether this function, perhaps qualified, enqueues jobs that can be moved to the job database, and does nothing
    /// else that lasts.
    pub fn is_enqueue(&self, schema: Option<&str>, function: &str) -> bool {
        let has = |of: &&Outgoing| of.enqueues.iter().any(|name| name.eq_ignore_ascii_case(function));
        self.outgoing.iter().filter(has).any(|of| of.may_be_in(schema))
    }

    /// Whether this function, perhaps qualified, makes or takes away tables of its library.
    pub(super) fn is_definition(&self, schema: Option<&str>, function: &str) -> bool {
        let has = |of: &&Outgoing| of.defines.iter().any(|name| name.eq_ignore_ascii_case(function));
        self.outgoing.iter().filter(has).any(|of| of.may_be_in(schema))
    }

    /// Whether the library's own INSERT into this table changes, by ON CONFLICT, what is in its way, to what it is.
    pub(super) fn touches_on_conflict(&self, schema: Option<&str>, table: &str) -> bool {
        self.is_relayed(schema, table) && table.eq_ignore_ascii_case("river_job")
    }

    /// Whether a notification on this channel does nothing but wake workers for jobs that were added, as the relay does.
    pub fn wakes(&self, channel: &str) -> bool {
        let is_it = |pattern: &str| match pattern.strip_prefix("{schema}.") {
            Some(rest) => channel.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case(rest)),
            None => channel.eq_ignore_ascii_case(pattern),
        };
        let mut relayed = self.outgoing.iter().flat_map(|of| of.relayed);
        relayed.any(|one| one.notify.as_ref().is_some_and(|notify| is_it(notify.channel)))
    }

    /// Whether the primary has a copy of the job database's rows of this table.
    pub fn is_mirrored(&self, schema: Option<&str>, table: &str) -> bool {
        let has = |of: &&Outgoing| of.mirrored.iter().any(|name| name.eq_ignore_ascii_case(table));
        self.outgoing.iter().filter(has).any(|of| of.may_be_in(schema))
    }

    /// Whether a name, perhaps qualified, is that of a sequence of a table whose rows are moved.
    pub(super) fn is_relayed_sequence(&self, value: &str) -> bool {
        let (schema, name) = split_name(value);
        let mut tables = name.match_indices('_').map(|(at, _)| &name[..at]);
        name.ends_with("_seq") && tables.any(|table| self.is_relayed(schema.as_deref(), table))
    }

    fn add_tables<S: AsRef<str>>(&mut self, tables: &[S]) {
        self.tables.extend(globs(tables));
        // What PostgreSQL calls the indexes and sequences that come with a table.
        for table in tables {
            for ending in ["_pkey", "_*key", "_*idx", "_*index", "_*seq"] {
                self.indexes.push(Glob::new(&format!("{}{ending}", table.as_ref())));
            }
        }
    }

    /// Whether everything in this schema is a job object.
    pub(super) fn schema(&self, schema: &str) -> bool {
        any(&self.schemas, schema)
    }

    /// Whether a preset's tables may live in this schema, which is not there by itself.
    pub(super) fn may_hold_jobs(&self, schema: &str) -> bool {
        schema != "public" && !self.tables.is_empty() && any(&self.in_schemas, schema)
    }

    /// Whether job objects may be all that is in this schema, or live there among others.
    pub(super) fn is_for_jobs(&self, schema: &str) -> bool {
        self.schema(schema) || self.may_hold_jobs(schema)
    }

    /// Whether a channel is one of jobs.
    pub(super) fn channel(&self, channel: &str) -> bool {
        any(&self.channels, channel)
    }

    /// Whether a name, perhaps qualified, is a job object.
    pub(super) fn object(&self, kind: Object, schema: Option<&str>, name: &str) -> bool {
        if let Some(schema) = schema {
            if self.schema(schema) {
                return true;
            }
            // Functions and types of a session's own may have the library's names (que).
            if !any(&self.in_schemas, schema) && !schema.eq_ignore_ascii_case("pg_temp") {
                return false;
            }
        }
        match kind {
            Object::Relation => any(&self.tables, name) || self.sequence(name),
            Object::Function => any(&self.functions, name),
            Object::Type => any(&self.types, name) || any(&self.tables, name),
            Object::Any => [&self.tables, &self.indexes, &self.functions, &self.types]
                .iter()
                .any(|globs| any(globs, name)),
        }
    }

    fn sequence(&self, name: &str) -> bool {
        name.ends_with("_seq") && any(&self.indexes, name)
    }

    /// The position of a pool in [`Rules::pools`].
    pub(super) fn pool(&self, name: &[u8]) -> Option<u8> {
        let position = self.pools.iter().position(|pool| pool.as_bytes() == name)?;
        u8::try_from(position).ok()
    }

    /// The target that `SET bulkhead.route` names; `None` if it is none.
    pub fn hint(&self, name: &str) -> Option<Hint> {
        self.target(name.as_bytes())
    }

    /// The target that a hint or `SET bulkhead.route` names.
    pub(super) fn target(&self, name: &[u8]) -> Option<Hint> {
        match name {
            b"primary" => Some(Hint::Primary),
            b"read" => Some(Hint::Read),
            b"job" => Some(Hint::Job),
            pool => self.pool(pool).map(Hint::Pool),
        }
    }

    /// Whether a value (a bound one, or a literal where literals decide) names a job object or channel:
    /// `oban_jobs`, `public.oban_jobs`, `"pgboss"."job"`, `{oban_jobs,oban_peers}`, `public.oban_insert`,
    /// `oban_jobs%`, `graphile_worker.add_job(text)`.
    pub fn value_names_job(&self, value: &[u8]) -> bool {
        // A name is short; an array of names is not long. Payloads need not be searched.
        if value.is_empty() || value.len() > 4096 || self.is_empty() {
            return false;
        }
        if let Some(elements) = binary_array(value) {
            return elements.into_iter().any(|element| self.text_names_job(element));
        }
        self.text_names_job(value)
    }

    fn text_names_job(&self, value: &[u8]) -> bool {
        let Ok(value) = std::str::from_utf8(value) else {
            return false;
        };
        match value.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(elements) => elements.split(',').any(|element| self.names_job(element.trim())),
            None => self.names_job(value.trim()),
        }
    }

    fn names_job(&self, value: &str) -> bool {
        if self.channel(value) || self.channel(value.trim_matches('"')) {
            return true;
        }
        let name = value.split('(').next().unwrap_or(value).trim_end_matches(['%', '*']);
        let (schema, name) = split_name(name);
        match schema {
            None if self.schema(&name) => true,
            schema => self.object(Object::Any, schema.as_deref(), &name),
        }
    }

    /// Whether a word of a program text is, or is qualified by, a job name.
    pub(super) fn words_name_job(&self, text: &str) -> bool {
        if self.is_empty() {
            return false;
        }
        let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '.' | '"');
        text.split(|c: char| !is_name(c)).filter(|word| !word.is_empty()).any(|word| {
            let (schema, name) = split_name(word.trim_matches('.'));
            match schema {
                // Quotes around a whole name inside a program: format('..%I..', 'pgboss').
                None => self.object(Object::Any, None, &name) || self.schema(&name),
                schema => self.object(Object::Any, schema.as_deref(), &name),
            }
        })
    }
}

/// Splits `schema.name`, with or without quotes; of more than two parts the last two count.
fn split_name(value: &str) -> (Option<String>, String) {
    let (mut schema, mut name) = (None, String::new());
    let (mut quoted, mut started) = (false, false);
    for c in value.chars() {
        match c {
            '"' => quoted = !quoted,
            '.' if !quoted && started => schema = Some(std::mem::take(&mut name)),
            c => name.push(c),
        }
        started = true;
    }
    (schema, name)
}

/// The elements of a one-dimensional array in the binary format of values; `None` if it is not one.
fn binary_array(value: &[u8]) -> Option<Vec<&[u8]>> {
    let number = |at: usize| Some(i32::from_be_bytes(*value.get(at..)?.first_chunk()?));
    // Dimensions, flags, element type, length, lower bound.
    let (1, 0 | 1, length) = (number(0)?, number(4)?, number(12)?) else {
        return None;
    };
    let (mut at, mut elements) = (20, Vec::new());
    for _ in 0..length {
        // -1 stands for NULL.
        let bytes = usize::try_from(number(at)?).unwrap_or(0);
        elements.push(value.get(at + 4..at + 4 + bytes)?);
        at += 4 + bytes;
    }
    Some(elements)
}

fn resolve(names: &[String]) -> Result<Vec<&'static Preset>, UnknownPreset> {
    let mut found: Vec<&'static Preset> = Vec::new();
    for name in names {
        let mut next = Some(name.as_str());
        while let Some(name) = next {
            let preset = presets::find(name)
                .ok_or_else(|| UnknownPreset { name: name.to_owned(), suggestion: presets::nearest(name) })?;
            if !found.iter().any(|known| known.name == preset.name) {
                found.push(preset);
            }
            next = preset.extends;
        }
    }
    Ok(found)
}

fn globs<S: AsRef<str>>(patterns: &[S]) -> Vec<Glob> {
    patterns.iter().map(|pattern| Glob::new(pattern.as_ref())).collect()
}

fn any(globs: &[Glob], name: &str) -> bool {
    globs.iter().any(|glob| glob.matches(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(presets: &[&str], schemas: &[&str]) -> Rules {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        Rules::new(&own(presets), &own(schemas), &Custom::default(), Vec::new()).expect("known presets")
    }

    #[test]
    fn knows_objects() {
        let rules = rules(&["oban", "pg_boss"], &["private"]);
        let is = |schema, name| rules.object(Object::Any, schema, name);
        assert!(is(None, "oban_jobs"));
        assert!(is(Some("public"), "OBAN_JOBS"));
        assert!(is(Some("private"), "oban_jobs"));
        assert!(!is(Some("other"), "oban_jobs"));
        assert!(is(None, "oban_jobs_id_seq"));
        assert!(is(None, "oban_jobs_args_index"));
        assert!(is(Some("pgboss"), "anything"));
        assert!(!is(None, "job"));
        assert!(!is(Some("private"), "users"));
    }

    #[test]
    fn schemas_rename_a_preset_that_owns_one() {
        let rules = rules(&["pg_boss"], &["boss"]);
        assert!(rules.object(Object::Relation, Some("boss"), "job"));
        assert!(rules.object(Object::Relation, Some("pgboss"), "job"));
    }

    #[test]
    fn values() {
        let rules = rules(&["oban", "pg_boss", "graphile_worker", "procrastinate"], &["private"]);
        for value in [
            "oban_jobs",
            "public.oban_jobs",
            "\"public\".\"oban_jobs\"",
            "private.oban_insert",
            "public.oban_leader",
            "{users,oban_jobs}",
            "oban_jobs%",
            "pgboss",
            "pgboss.version",
            "jobs:insert",
            "graphile_worker.add_job(text)",
            "procrastinate_queue_v1#default",
            "oban_jobs_id_seq",
        ] {
            assert!(rules.value_names_job(value.as_bytes()), "{value}");
        }
        for value in
            ["", "users", "public.users", "{users,posts}", "app.oban_x", "job", "{\"type\":\"oban_jobs\"}"]
        {
            assert!(!rules.value_names_job(value.as_bytes()), "{value}");
        }
        assert!(!rules.value_names_job(&[0xff, 0xfe]));
        let array = |names: &[&str]| {
            let mut bytes: Vec<u8> =
                [1, 0, 25, names.len() as i32, 1].iter().flat_map(|n: &i32| n.to_be_bytes()).collect();
            for name in names {
                bytes.extend((name.len() as i32).to_be_bytes());
                bytes.extend(name.bytes());
            }
            bytes
        };
        assert!(rules.value_names_job(&array(&["users", "oban_jobs"])));
        assert!(!rules.value_names_job(&array(&["users", "posts"])));
        assert!(!rules.value_names_job(&array(&["users", "oban_jobs"])[..30]));
    }

    #[test]
    fn knows_what_is_relayed() {
        let rules = rules(&["oban_pro", "pg_boss", "procrastinate", "pgmq"], &["private"]);
        assert!(rules.is_relayed(None, "oban_jobs"));
        assert!(rules.is_relayed(Some("private"), "oban_jobs"));
        assert!(!rules.is_relayed(Some("other"), "oban_jobs"));
        assert!(!rules.is_relayed(None, "oban_peers"));
        assert!(rules.is_relayed(Some("pgboss"), "job"));
        assert!(!rules.is_relayed(Some("public"), "job"));
        assert!(!rules.is_relayed(None, "job"));
        assert!(rules.is_relayed(Some("pgmq"), "q_mine"));
        assert!(!rules.is_relayed(Some("pgmq"), "a_mine"));
        assert!(!rules.is_relayed(None, "q_mine"));
        assert!(rules.is_enqueue(Some("pgmq"), "send_batch"));
        for other in ["read", "create", "send_topic", "archive"] {
            assert!(!rules.is_enqueue(Some("pgmq"), other), "{other}");
        }
        assert!(!rules.is_enqueue(None, "send"));
        assert!(rules.is_enqueue(None, "procrastinate_defer_jobs_v1"));
        assert!(!rules.is_enqueue(None, "procrastinate_fetch_job_v2"));
    }

    #[test]
    fn an_unknown_preset_is_named() {
        let error = Rules::new(&["pgboss".to_owned()], &[], &Custom::default(), Vec::new());
        let error = error.expect_err("there is no such preset");
        assert_eq!(error.to_string(), "there is no job preset \"pgboss\"; did you mean \"pg_boss\"?");
    }
}
