//! The forms that a write can have. Each has relations of its own, so that nothing but this form makes them change.
//!
//! In all texts `{f}` stands for the form's name, `{k}` for a key, `{v}` for a version and `{last}` for the last key.
//! Each key belongs to one writer, and its version only grows.

use super::hidden::{DEFINITIONS, HIDDEN};
use How::{Bound, CopyIn, Fails, Function, Lost, Parsed, Pipeline, Portal, Prepared, Steps};

/// One form of write, and what it is read back from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub(super) name: &'static str,
    /// Made besides `c_{f}`, or in its place. What names `{k}` is made for each key.
    pub(super) objects: &'static [&'static str],
    /// What has columns `key` and `version`; `c_{f}` if this is empty.
    relation: &'static str,
    pub(super) how: How,
    pub(super) kind: Kind,
}

/// How it is sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum How {
    /// Queries, one after the other. The write is acknowledged with the last of the first list; the second tidies up.
    Steps(&'static [&'static str], &'static [&'static str]),
    /// A Query that is acknowledged, and then fails with something else.
    Fails(&'static str),
    /// The extended protocol without a name, with the key for `$1` and the version for `$2`.
    Bound(&'static str),
    /// The same with a statement that is prepared once.
    Prepared(&'static str),
    /// Statements by the extended protocol with one Sync.
    Pipeline(&'static [&'static str]),
    /// In a transaction by a portal that was bound before the request which executes it.
    Portal(&'static str),
    /// Parsed as a statement of the protocol, and run by SQL's `EXECUTE`.
    Parsed(&'static str),
    /// `COPY FROM STDIN` of one row.
    CopyIn(&'static str),
    /// The protocol's message FunctionCall, of a function with key and version.
    Function(&'static str),
    /// A Query whose answer nobody reads. Whether it was done is never known.
    Lost(&'static str),
}

/// What is to be minded with a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing.
    Plain,
    /// It replaces the relation or what is in it: PostgreSQL itself lets snapshots that are older than that see it empty,
    /// and nothing may depend on it. Seldom, because the catalog changes with it.
    Replaces,
    /// Only the primary can tell it.
    AtPrimary,
    /// It is acknowledged to nobody.
    Unknown,
}

impl Form {
    pub(super) const fn of(name: &'static str, how: How) -> Self {
        Self { name, objects: &[STANDARD], relation: "", how, kind: Kind::Plain }
    }

    /// With objects besides `c_{f}`.
    pub(super) const fn with(mut self, objects: &'static [&'static str]) -> Self {
        self.objects = objects;
        self
    }

    pub(super) const fn read_from(mut self, relation: &'static str) -> Self {
        self.relation = relation;
        self
    }

    pub(super) const fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// What reads of this key name.
    pub(super) fn relation(&self, key: usize) -> String {
        let relation = if self.relation.is_empty() { "c_{f}" } else { self.relation };
        self.fill(relation, key, 0)
    }

    /// A text for a key and a version.
    pub(super) fn fill(&self, text: &str, key: usize, version: u64) -> String {
        text.replace("{f}", self.name).replace("{k}", &key.to_string()).replace("{v}", &version.to_string())
    }

    /// Whether only a client that speaks the protocol message by message can send it.
    pub(super) fn is_raw(&self) -> bool {
        !matches!(self.how, Steps(..) | Bound(_) | Prepared(_))
    }

    /// Statements that make the form's objects, with version 0 of every key up to `last`.
    pub(super) fn schema(&self, last: usize) -> String {
        let mut sql = String::new();
        for object in self.objects {
            let keys = if object.contains("{k}") { last } else { 0 };
            for key in 0..=keys {
                sql += &self.fill(object, key, 0).replace("{last}", &last.to_string());
                sql += ";\n";
            }
        }
        sql
    }
}

/// The form of this name.
pub(super) fn named(name: &str) -> &'static Form {
    FORMS.iter().copied().flatten().find(|form| form.name == name).expect("there is such a form")
}

/// A register for each key.
pub(super) const STANDARD: &str = "CREATE TABLE c_{f} (key int PRIMARY KEY, version bigint NOT NULL);
    INSERT INTO c_{f} SELECT n, 0 FROM generate_series(0, {last}) n";

/// All versions of each key.
const HISTORY: &str = "CREATE TABLE c_{f} (key int, version bigint, PRIMARY KEY (key, version))";

/// A table for each key.
pub(super) const EACH: &str = "CREATE TABLE c_{f}_{k} AS SELECT {k} AS key, 0::bigint AS version";

const UPDATE: &str = "UPDATE c_{f} SET version = {v} WHERE key = {k}";

const UPDATE_BOUND: &str = "UPDATE c_{f} SET version = $2::bigint WHERE key = $1::int";

const CALL: &str = "SELECT w_{f}({k}, {v})";

/// What the forms are made of that change a table by the way.
pub(super) const BESIDE: &str = "CREATE TABLE b_{f} (key int PRIMARY KEY, version bigint NOT NULL);
    INSERT INTO b_{f} SELECT n, 0 FROM generate_series(0, {last}) n";

pub(super) const UPDATE_BESIDE: &str = "UPDATE b_{f} SET version = {v} WHERE key = {k}";

pub(super) const TRIGGER: &str = "CREATE FUNCTION t_{f}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    UPDATE c_{f} SET version = NEW.version WHERE key = NEW.key; RETURN NEW; END $$";

pub(super) const FORMS: &[&[Form]] =
    &[STATEMENTS, PROTOCOL, TRANSACTIONS, OBJECTS, CODE, HIDDEN, DEFINITIONS];

/// Statements by themselves.
pub(super) const STATEMENTS: &[Form] = &[
    Form::of("update", Steps(&[UPDATE], &[])),
    Form::of("insert", Steps(&["INSERT INTO c_{f} VALUES ({k}, {v})"], &[])).with(&[HISTORY]),
    Form::of(
        "upsert",
        Steps(
            &[
                "INSERT INTO c_{f} VALUES ({k}, {v}) ON CONFLICT (key) DO UPDATE SET version = excluded.version",
            ],
            &[],
        ),
    ),
    // A version counts once the row that hides it is gone.
    Form::of(
        "delete",
        Steps(
            &[
                "INSERT INTO c_{f} VALUES ({k}, {v}, 'shown'), ({k}, {v}, 'hides')",
                "DELETE FROM c_{f} WHERE key = {k} AND (what = 'hides' OR version < {v})",
            ],
            &[],
        ),
    )
    .with(&["CREATE TABLE c_{f} (key int, version bigint, what text, PRIMARY KEY (key, version, what))"])
    .read_from(
        "(SELECT s.key, s.version FROM c_{f} s WHERE NOT EXISTS (SELECT FROM c_{f} h \
         WHERE h.key = s.key AND h.version = s.version AND h.what = 'hides'))",
    ),
    Form::of(
        "merge",
        Steps(
            &["MERGE INTO c_{f} t USING (SELECT {k} AS key, {v}::bigint AS version) s ON t.key = s.key \
               WHEN MATCHED THEN UPDATE SET version = s.version"],
            &[],
        ),
    ),
    Form::of(
        "cte",
        Steps(
            &[
                "WITH changed AS (UPDATE c_{f} SET version = {v} WHERE key = {k} RETURNING key) SELECT * FROM changed",
            ],
            &[],
        ),
    ),
    Form::of(
        "list",
        Steps(&["UPDATE c_{f} SET versions = (ARRAY[{v}::bigint] || versions)[:9] WHERE key = {k}"], &[]),
    )
    .with(&["CREATE TABLE c_{f} (key int PRIMARY KEY, versions bigint[]);
             INSERT INTO c_{f} SELECT n, '{}' FROM generate_series(0, {last}) n"])
    .read_from("(SELECT l.key, v.version FROM c_{f} l, unnest(l.versions) AS v(version))"),
    Form::of("analyze", Steps(&["EXPLAIN ANALYZE UPDATE c_{f} SET version = {v} WHERE key = {k}"], &[])),
    Form::of("several", Steps(&["SELECT 1; UPDATE c_{f} SET version = {v} WHERE key = {k}; SELECT 2"], &[])),
    Form::of(
        "hinted",
        Steps(&["/* bulkhead: route=primary */ UPDATE c_{f} SET version = {v} WHERE key = {k}"], &[]),
    ),
    Form::of("sequence", Steps(&["SELECT setval('c_{f}_{k}', {v})"], &[]))
        .with(&["CREATE SEQUENCE c_{f}_{k}"])
        .read_from("(SELECT {k} AS key, last_value AS version FROM c_{f}_{k} WHERE is_called)")
        .kind(Kind::AtPrimary),
];

/// What the protocol offers besides Query.
pub(super) const PROTOCOL: &[Form] = &[
    Form::of("bound", Bound(UPDATE_BOUND)),
    Form::of("prepared", Prepared(UPDATE_BOUND)),
    Form::of("copy", CopyIn("COPY c_{f} (key, version) FROM STDIN")).with(&[HISTORY]),
    Form::of("pipeline", Pipeline(&["SELECT 1", UPDATE, "SELECT 2"])),
    Form::of("pipeline_commits", Pipeline(&["BEGIN", UPDATE, "COMMIT", "SELECT 2"])),
    Form::of("commits_and_fails", Fails("BEGIN; UPDATE c_{f} SET version = {v} WHERE key = {k}; COMMIT; SELECT 1/0")),
    Form::of("portal", Portal(UPDATE)),
    Form::of("parsed", Parsed(UPDATE)),
    Form::of("called_by_message", Function("w_{f}")).with(&[
        STANDARD,
        "CREATE FUNCTION w_{f}(k int, v bigint) RETURNS void LANGUAGE sql AS $$ UPDATE c_{f} SET version = v WHERE key = k $$",
    ]),
    Form::of("lost", Lost("UPDATE c_{f} SET version = greatest(version, {v}) WHERE key = {k}")).kind(Kind::Unknown),
];

/// Transactions and what sessions hold.
pub(super) const TRANSACTIONS: &[Form] = &[
    Form::of("transaction", Steps(&["BEGIN", UPDATE, "SELECT 1", "COMMIT"], &[])),
    Form::of(
        "savepoint",
        Steps(
            &[
                "BEGIN",
                "SAVEPOINT a",
                UPDATE,
                "RELEASE a",
                "SAVEPOINT b",
                "SELECT 1",
                "ROLLBACK TO b",
                "COMMIT",
            ],
            &[],
        ),
    ),
    Form::of("chain", Steps(&["BEGIN", UPDATE, "COMMIT AND CHAIN"], &["ROLLBACK"])),
    Form::of(
        "read_first",
        Steps(&["BEGIN", "SELECT version FROM c_{f} WHERE key = {k}", UPDATE, "COMMIT"], &[]),
    ),
    Form::of(
        "two_phase",
        Steps(&["BEGIN", UPDATE, "PREPARE TRANSACTION '{f} {k} {v}'", "COMMIT PREPARED '{f} {k} {v}'"], &[]),
    ),
    Form::of("not_flushed", Steps(&["SET synchronous_commit = off", UPDATE], &["RESET synchronous_commit"])),
    Form::of(
        "not_flushed_local",
        Steps(&["BEGIN", "SET LOCAL synchronous_commit = off", UPDATE, "COMMIT"], &[]),
    ),
    Form::of(
        "locked",
        Steps(&["SELECT pg_advisory_lock(4711, {k})", UPDATE], &["SELECT pg_advisory_unlock(4711, {k})"]),
    ),
    Form::of("beside_temporary", Steps(&["CREATE TEMP TABLE mine (a int)", UPDATE], &["DROP TABLE mine"])),
    // `c_shadow` is the temporary table while there is one.
    Form::of(
        "shadow",
        Steps(
            &[
                "CREATE TEMP TABLE c_{f} (key int, version bigint)",
                "INSERT INTO c_{f} VALUES ({k}, 0)",
                "UPDATE public.c_{f} SET version = {v} WHERE key = {k}",
            ],
            &["DROP TABLE pg_temp.c_{f}"],
        ),
    ),
    Form::of("elsewhere", Steps(&["SET search_path = elsewhere, public", UPDATE], &["RESET search_path"]))
        .with(&[
            STANDARD,
            "CREATE TABLE elsewhere.c_{f} (key int PRIMARY KEY, version bigint NOT NULL);
             INSERT INTO elsewhere.c_{f} SELECT n, 0 FROM generate_series(0, {last}) n",
        ])
        .read_from("elsewhere.c_{f}"),
    Form::of(
        "cursor",
        Steps(
            &[
                "BEGIN",
                "DECLARE c CURSOR FOR SELECT * FROM c_{f} WHERE key = {k} FOR UPDATE",
                "FETCH c",
                "UPDATE c_{f} SET version = {v} WHERE CURRENT OF c",
                "COMMIT",
            ],
            &[],
        ),
    ),
    Form::of(
        "executed",
        Steps(
            &[
                "PREPARE p (int, bigint) AS UPDATE c_{f} SET version = $2 WHERE key = $1",
                "EXECUTE p ({k}, {v})",
            ],
            &["DEALLOCATE p"],
        ),
    ),
    Form::of("role", Steps(&["SET ROLE app", UPDATE], &["RESET ROLE"])),
];

/// What is written by way of other objects.
pub(super) const OBJECTS: &[Form] = &[
    Form::of("view", Steps(&["UPDATE v_{f} SET version = {v} WHERE key = {k}"], &[]))
        .with(&[STANDARD, "CREATE VIEW v_{f} AS SELECT key, version FROM c_{f}"]),
    Form::of("instead_of", Steps(&["UPDATE v_{f} SET version = {v} WHERE key = {k}"], &[])).with(&[
        STANDARD,
        TRIGGER,
        "CREATE VIEW v_{f} AS SELECT key, version + 0 AS version FROM c_{f}",
        "CREATE TRIGGER t INSTEAD OF UPDATE ON v_{f} FOR EACH ROW EXECUTE FUNCTION t_{f}()",
    ]),
    Form::of("rule", Steps(&[UPDATE_BESIDE], &[])).with(&[
        STANDARD,
        BESIDE,
        "CREATE RULE r AS ON UPDATE TO b_{f} DO ALSO UPDATE c_{f} SET version = NEW.version WHERE key = NEW.key",
    ]),
    Form::of("trigger", Steps(&[UPDATE_BESIDE], &[])).with(&[
        STANDARD,
        BESIDE,
        TRIGGER,
        "CREATE TRIGGER t AFTER UPDATE ON b_{f} FOR EACH ROW EXECUTE FUNCTION t_{f}()",
    ]),
    Form::of("trigger_at_commit", Steps(&["BEGIN", UPDATE_BESIDE, "COMMIT"], &[])).with(&[
        STANDARD,
        BESIDE,
        TRIGGER,
        "CREATE CONSTRAINT TRIGGER t AFTER UPDATE ON b_{f} DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW EXECUTE FUNCTION t_{f}()",
    ]),
    Form::of("cascade", Steps(&["UPDATE b_{f} SET version = {v} WHERE key = {k}"], &[])).with(&[
        "CREATE TABLE b_{f} (key int, version bigint, PRIMARY KEY (key, version));
         INSERT INTO b_{f} SELECT n, 0 FROM generate_series(0, {last}) n;
         CREATE TABLE c_{f} (key int PRIMARY KEY, version bigint,
             FOREIGN KEY (key, version) REFERENCES b_{f} ON UPDATE CASCADE);
         INSERT INTO c_{f} SELECT n, 0 FROM generate_series(0, {last}) n",
    ]),
    Form::of("by_partition", Steps(&["UPDATE c_{f}_low SET version = {v} WHERE key = {k}"], &[])).with(PARTITIONS),
    Form::of("by_parent", Steps(&[UPDATE], &[])).with(PARTITIONS).read_from("c_{f}_low"),
    Form::of("by_child", Steps(&["UPDATE b_{f} SET version = {v} WHERE key = {k}"], &[])).with(&[
        "CREATE TABLE c_{f} (key int, version bigint); CREATE TABLE b_{f} () INHERITS (c_{f});
         INSERT INTO b_{f} SELECT n, 0 FROM generate_series(0, {last}) n",
    ]),
];

const PARTITIONS: &[&str] =
    &["CREATE TABLE c_{f} (key int PRIMARY KEY, version bigint NOT NULL) PARTITION BY RANGE (key);
     CREATE TABLE c_{f}_low PARTITION OF c_{f} FOR VALUES FROM (0) TO (1000);
     CREATE TABLE c_{f}_high PARTITION OF c_{f} FOR VALUES FROM (1000) TO (2000);
     INSERT INTO c_{f} SELECT n, 0 FROM generate_series(0, {last}) n"];

/// What is written by functions, procedures and code.
pub(super) const CODE: &[Form] = &[
    Form::of("function", Steps(&[CALL], &[])).with(&[
        STANDARD,
        "CREATE FUNCTION w_{f}(k int, v bigint) RETURNS void LANGUAGE sql AS $$ UPDATE c_{f} SET version = v WHERE key = k $$",
    ]),
    Form::of("plpgsql", Steps(&[CALL], &[])).with(&[
        STANDARD,
        "CREATE FUNCTION w_{f}(k int, v bigint) RETURNS void LANGUAGE plpgsql AS
         $$ BEGIN UPDATE c_{f} SET version = v WHERE key = k; END $$",
    ]),
    Form::of("dynamic", Steps(&[CALL], &[])).with(&[
        STANDARD,
        "CREATE FUNCTION w_{f}(k int, v bigint) RETURNS void LANGUAGE plpgsql AS
         $$ BEGIN EXECUTE 'UPDATE c_' || '{f} SET version = $1 WHERE key = $2' USING v, k; END $$",
    ]),
    Form::of("view_that_writes", Steps(&[UPDATE_BESIDE, "SELECT * FROM v_{f} WHERE key = {k}"], &[])).with(&[
        STANDARD,
        BESIDE,
        "CREATE FUNCTION w_{f}(k int, v bigint) RETURNS bigint LANGUAGE sql AS
         $$ UPDATE c_{f} SET version = v WHERE key = k RETURNING version $$;
         CREATE VIEW v_{f} AS SELECT key, w_{f}(key, version) AS done FROM b_{f}",
    ]),
    Form::of("block", Steps(&["DO $$ BEGIN UPDATE c_{f} SET version = {v} WHERE key = {k}; END $$"], &[])),
    Form::of("block_commits", Steps(&["DO $$ BEGIN UPDATE c_{f} SET version = {v} WHERE key = {k}; COMMIT; PERFORM 1; END $$"], &[])),
    Form::of("procedure", Steps(&["CALL w_{f}({k}, {v})"], &[])).with(&[
        STANDARD,
        "CREATE PROCEDURE w_{f}(k int, v bigint) LANGUAGE plpgsql AS
         $$ BEGIN UPDATE c_{f} SET version = v WHERE key = k; COMMIT; PERFORM 1; END $$",
    ]),
];
