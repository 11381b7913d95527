//! What the relay says to the servers, for one table. Pure text.
//!
//! A session has an empty search path. Where triggers of the library may run, the path is the one that the role has
//! otherwise, since they may name tables without their schemas. So these statements look up no operator by its name alone.

use super::{
    COUNTED_MAX,
    tables::{Table, source_literal},
    text::{carry_out, literal, name},
};

pub(super) const EQUALS: &str = "OPERATOR(pg_catalog.=)";

/// Triggers run as they do for everybody of this role.
const PATH_OF_TRIGGERS: &str = "SET LOCAL search_path TO DEFAULT";

/// How long a call waits for whoever holds what it changes, before it is put off: other tables wait behind it.
const CALL_PATIENCE: &str = "50ms";

/// How long rows wait for whoever has their table locked, or a key that they need: less than `deadlock_timeout` is, so that
/// nobody else is chosen to fail.
const ROWS_PATIENCE: &str = "500ms";

/// How long a look waits for whoever has a table locked.
const LOOK_PATIENCE: &str = "50ms";

/// The statements for one table. `at` tells its objects in the job database's session from those of others.
#[derive(Clone, Debug)]
pub(super) struct Statements {
    pub(super) table: Table,
    pub(super) at: usize,
}

impl Statements {
    pub(super) fn new(table: Table, at: usize) -> Self {
        Self { table, at }
    }

    pub(super) fn source(&self) -> String {
        self.table.source()
    }

    fn relation(&self) -> String {
        format!("{}.{}", name(&self.table.schema), name(&self.table.name))
    }

    pub(super) fn stage(&self) -> String {
        format!("pg_temp.bulkhead_stage_{}", self.at)
    }

    /// Has the transaction wait no longer than that for whoever holds what it needs.
    fn patience(&self) -> String {
        let patience = if self.table.call.is_some() { CALL_PATIENCE } else { ROWS_PATIENCE };
        format!("SET LOCAL lock_timeout = '{patience}'; ")
    }

    /// A row's key as one text.
    fn key(&self, row: &str) -> String {
        let columns: Vec<String> = self.table.key.iter().map(|key| format!("{row}.{}", name(key))).collect();
        match columns.as_slice() {
            [one] => format!("({one})::pg_catalog.text"),
            several => format!("ROW({})::pg_catalog.text", several.join(", ")),
        }
    }

    /// Whether a row has the key that this text is, in SQL. With a key of one column, by its index.
    fn has_key(&self, row: &str, key: &str) -> String {
        match self.table.key.as_slice() {
            [one] => {
                let kind = self.table.column(one).map_or("pg_catalog.text", |column| &column.cast);
                format!("{row}.{} {EQUALS} ({key})::{kind}", name(one))
            }
            _ => format!("{} {EQUALS} {key}", self.key(row)),
        }
    }

    fn key_columns(&self, row: &str) -> String {
        let columns: Vec<String> = self.table.key.iter().map(|key| format!("{row}.{}", name(key))).collect();
        columns.join(", ")
    }

    fn same_key(&self, one: &str, other: &str) -> String {
        let same = self.table.key.iter().map(|key| format!("{one}.{0} {EQUALS} {other}.{0}", name(key)));
        same.collect::<Vec<_>>().join(" AND ")
    }

    /// The moved columns; of a row if one is named.
    fn columns(&self, row: &str) -> String {
        let dot = if row.is_empty() { "" } else { "." };
        let columns: Vec<String> =
            self.table.moved().map(|column| format!("{row}{dot}{}", name(&column.name))).collect();
        columns.join(", ")
    }

    /// On the primary: opens a transaction, takes rows away, in the order of their keys, and copies them out.
    pub(super) fn take(&self, limit: usize) -> String {
        let relation = self.relation();
        format!(
            "BEGIN; {PATH_OF_TRIGGERS}; {patience}COPY (WITH picked AS (SELECT {picked} FROM {relation} AS k ORDER BY {picked} LIMIT {limit} \
             FOR UPDATE{skip}) DELETE FROM {relation} AS j USING picked AS k WHERE {same} \
             RETURNING {key}, {columns}{names}) TO STDOUT",
            picked = self.key_columns("k"),
            same = self.same_key("j", "k"),
            // Calls are made in their order.
            patience = self.patience(),
            skip = if self.table.call.is_some() { "" } else { " SKIP LOCKED" },
            key = self.key("j"),
            columns = self.columns("j"),
            names = self.names(),
        )
    }

    /// On the primary: whether the first row that nobody else has locked stays there though it is deleted.
    pub(super) fn keeps(&self) -> String {
        let relation = self.relation();
        format!(
            "BEGIN; {PATH_OF_TRIGGERS}; {patience}WITH picked AS MATERIALIZED (SELECT {picked} FROM {relation} AS k ORDER BY {picked} LIMIT 1 \
             FOR UPDATE SKIP LOCKED), gone AS (DELETE FROM {relation} AS j USING picked AS k WHERE {same} RETURNING 1) \
             SELECT EXISTS (SELECT FROM picked) AND NOT EXISTS (SELECT FROM gone); ROLLBACK",
            patience = self.patience(),
            picked = self.key_columns("k"),
            same = self.same_key("j", "k"),
        )
    }

    /// In the job database, once a connection: where rows come in, and what is done with them from there.
    ///
    /// A row is inserted if the ledger did not have it. What the ledger had already was inserted by a round whose end the
    /// primary did not see, unless it is another row of the same key: a primary that has lost its last commits may give a
    /// number again. Such rows are counted, and so are new ones whose key a job has already: neither may be dropped. Both are
    /// looked up row by row (`LATERAL .. LIMIT 1`), or a plan may read all of a ledger for each round. Rows that are not to be
    /// moved, or cannot be now, are not inserted, and told of.
    pub(super) fn prepare(&self) -> String {
        let (relation, stage, source) = (self.relation(), self.stage(), source_literal(&self.table));
        format!(
            "{patience}CREATE TEMPORARY TABLE bulkhead_stage_{at} AS \
             SELECT ''::pg_catalog.text AS bulkhead_key, {of_table}{names} FROM {relation} AS j WITH NO DATA; \
             SET search_path TO DEFAULT; {prepare_parents}\
             PREPARE bulkhead_put_{at} AS \
             WITH given AS MATERIALIZED (SELECT i.*, {is_lost} AS bulkhead_lost, {why_unfit} AS bulkhead_unfit FROM (\
             SELECT j.*, pg_catalog.hashtextextended((j.*)::pg_catalog.text, 0) AS bulkhead_digest{numbers} \
             FROM {stage} AS j) AS i), \
             fresh AS (INSERT INTO bulkhead.relayed (source_table, key, digest) \
             SELECT {source}, g.bulkhead_key, g.bulkhead_digest FROM given AS g ON CONFLICT DO NOTHING RETURNING key), \
             {put}, \
             judged AS (SELECT pg_catalog.count(*) FILTER (WHERE g.bulkhead_lost) AS lost, \
             pg_catalog.min(g.bulkhead_unfit) AS unfit \
             FROM given AS g JOIN fresh AS f ON f.key {EQUALS} g.bulkhead_key), \
             counted AS (SELECT (SELECT pg_catalog.count(*) FROM fresh) AS fresh, (SELECT pg_catalog.count(*) FROM put) AS put), \
             noted AS (UPDATE bulkhead.outbox AS o SET relayed = o.relayed OPERATOR(pg_catalog.+) c.fresh, \
             conflicts = o.conflicts OPERATOR(pg_catalog.+) (c.fresh OPERATOR(pg_catalog.-) c.put), \
             relayed_at = pg_catalog.now() \
             FROM counted AS c WHERE o.source_table {EQUALS} {source}) \
             SELECT c.fresh, c.put, \
             (SELECT pg_catalog.count(*) FROM given AS g JOIN fresh AS f ON f.key {EQUALS} g.bulkhead_key \
             CROSS JOIN LATERAL (SELECT FROM {relation} AS j WHERE {same} LIMIT 1) AS t), \
             (SELECT pg_catalog.count(*) FROM given AS g CROSS JOIN LATERAL (SELECT FROM bulkhead.relayed AS r \
             WHERE r.source_table {EQUALS} {source} AND r.key {EQUALS} g.bulkhead_key \
             AND r.digest OPERATOR(pg_catalog.<>) g.bulkhead_digest LIMIT 1) AS t), \
             w.lost, w.unfit FROM counted AS c CROSS JOIN judged AS w; \
             SET search_path = ''; \
             PREPARE bulkhead_tell_{at} AS {tell}",
            patience = self.patience(),
            at = self.at,
            of_table = self.columns("j"),
            names = self.names(),
            prepare_parents = self.prepare_parents(),
            is_lost = self.is_lost(),
            why_unfit = self.why_unfit(),
            numbers = self.numbers(),
            put = self.put_fresh(),
            same = self.same_key("j", "g"),
            tell = self.tell(),
        )
    }

    /// Inserts the rows that are fresh, or makes the calls that they are.
    fn put_fresh(&self) -> String {
        let of = format!("FROM given AS g JOIN fresh AS f ON f.key {EQUALS} g.bulkhead_key");
        let order = self.key_columns("g");
        if let Some(call) = &self.table.call {
            return format!(
                "put AS MATERIALIZED (SELECT {call} FROM (SELECT g.* {of} ORDER BY {order}) AS c)"
            );
        }
        format!(
            "put AS (INSERT INTO {relation} ({columns}) OVERRIDING SYSTEM VALUE SELECT {of_given} {of} \
             WHERE NOT g.bulkhead_lost AND g.bulkhead_unfit IS NULL ORDER BY {order} \
             ON CONFLICT DO NOTHING RETURNING 1)",
            relation = self.relation(),
            columns = self.columns(""),
            of_given = self.numbered(),
        )
    }

    /// Wakes the library's workers, if its table's own triggers do not.
    fn tell(&self) -> String {
        let Some(notify) = self.table.relayed.and_then(|relayed| relayed.notify.as_ref()) else {
            return "SELECT 1 WHERE false".to_owned();
        };
        let channel = literal(&notify.channel.replace("{schema}", &self.table.schema));
        format!(
            "SELECT pg_catalog.pg_notify({channel}, n.payload) FROM (SELECT DISTINCT {payload} AS payload FROM {stage} AS j \
             WHERE {when}) AS n WHERE n.payload IS NOT NULL",
            payload = notify.payload,
            stage = self.stage(),
            when = notify.when,
        )
    }

    /// In the job database: opens a transaction in which rows come in. What earlier ones have left in the files of the
    /// stage, nobody else removes. To empty them takes longer than a small round, so not each one does (nor does `ON COMMIT
    /// DELETE ROWS`, which would).
    pub(super) fn opening(&self, empties: bool) -> String {
        let stage = self.stage();
        let truncate = if empties { format!("TRUNCATE {stage}; ") } else { String::new() };
        format!("BEGIN; {truncate}COPY {stage} FROM STDIN")
    }

    /// In the job database, behind the rows.
    pub(super) fn put(&self) -> [String; 2] {
        [
            format!(
                "{PATH_OF_TRIGGERS}; {}{}EXECUTE bulkhead_put_{}",
                self.patience(),
                self.put_parents(),
                self.at
            ),
            // Some triggers run at COMMIT only.
            format!(
                "SET LOCAL search_path = ''; EXECUTE bulkhead_tell_{}; DELETE FROM {}; {PATH_OF_TRIGGERS}",
                self.at,
                self.stage()
            ),
        ]
    }

    /// On the primary: sets a row aside that the job database refuses.
    pub(super) fn set_aside(&self, key: &str, error: &str) -> String {
        format!(
            "BEGIN; {PATH_OF_TRIGGERS}; WITH gone AS (DELETE FROM {relation} AS j WHERE {has_key} RETURNING j.*) \
             INSERT INTO bulkhead.refused (source_table, key, row, error) \
             SELECT {source}, {key}, pg_catalog.to_json(g.*), {error} FROM gone AS g; COMMIT",
            relation = self.relation(),
            has_key = self.has_key("j", &literal(key)),
            source = source_literal(&self.table),
            key = literal(key),
            error = literal(error),
        )
    }

    /// On the primary: how many rows wait, the first of them, and for how many milliseconds it has.
    pub(super) fn waiting(&self) -> String {
        let relation = self.relation();
        let age = self.age().map_or("NULL".to_owned(), |age| {
            format!("(pg_catalog.date_part('epoch', {age}) * 1000)::pg_catalog.int8::pg_catalog.text")
        });
        format!(
            "SELECT (SELECT pg_catalog.count(*) FROM (SELECT FROM {relation} LIMIT {COUNTED_MAX}) AS c), f.key, f.age \
             FROM (SELECT 1) AS one LEFT JOIN (SELECT {key} AS key, {age} AS age FROM {relation} AS j \
             ORDER BY {order} LIMIT 1) AS f ON true",
            key = self.key("j"),
            order = self.key_columns("j"),
        )
    }

    /// On the primary: the same, unless somebody has the table locked.
    pub(super) fn waiting_unlocked(&self) -> String {
        format!("SET LOCAL lock_timeout = '{LOOK_PATIENCE}'; {}", self.waiting())
    }

    /// How long ago a row was enqueued, if its table tells.
    fn age(&self) -> Option<String> {
        let column = self.table.column(self.table.relayed?.enqueued_at?)?;
        let now = match column.type_name.as_str() {
            kind if kind.ends_with(" with time zone") => "pg_catalog.now()",
            kind if kind.starts_with("timestamp") => "pg_catalog.timezone('UTC', pg_catalog.now())",
            _ => return None,
        };
        Some(format!("({now} - j.{})", name(&column.name)))
    }

    /// In the job database: the rows of a table that is mirrored, in short, unless somebody has it locked.
    pub(super) fn digest(&self) -> String {
        format!(
            "SET LOCAL lock_timeout = '{LOOK_PATIENCE}'; SELECT pg_catalog.md5(pg_catalog.string_agg(d.row, '' ORDER BY d.row)) \
             FROM (SELECT (j.*)::pg_catalog.text AS row FROM {} AS j) AS d",
            self.relation()
        )
    }

    /// In the job database: the rows of a table that is mirrored.
    pub(super) fn read_all(&self) -> String {
        format!("COPY (SELECT {} FROM {} AS j) TO STDOUT", self.columns("j"), self.relation())
    }

    /// On the primary: opens a transaction in which rows of a table that is mirrored come in.
    pub(super) fn mirror_opening(&self) -> String {
        format!(
            "BEGIN; {PATH_OF_TRIGGERS}; SET LOCAL lock_timeout = '{LOOK_PATIENCE}'; \
             CREATE TEMPORARY TABLE bulkhead_mirror_{at} ON COMMIT DROP AS \
             SELECT {columns} FROM {relation} AS j WITH NO DATA; COPY pg_temp.bulkhead_mirror_{at} FROM STDIN",
            at = self.at,
            columns = self.columns("j"),
            relation = self.relation(),
        )
    }

    /// On the primary, behind these rows: what is new is added, what has changed is changed. What is gone stays: rows that
    /// wait may name it.
    ///
    /// Fails at once while another transaction writes to the table: a definition that adds a row and then locks the table,
    /// as pg-boss adds a queue, would wait for whoever waits for that row.
    pub(super) fn mirror(&self) -> String {
        let columns: Vec<String> = self.table.moved().map(|column| name(&column.name)).collect();
        let set: Vec<String> = columns.iter().map(|column| format!("{column} = EXCLUDED.{column}")).collect();
        format!(
            "LOCK TABLE {relation} IN SHARE ROW EXCLUSIVE MODE NOWAIT; \
             INSERT INTO {relation} AS q ({all}) OVERRIDING SYSTEM VALUE SELECT {all} FROM pg_temp.bulkhead_mirror_{at} \
             ON CONFLICT ({key}) DO UPDATE SET {set} \
             WHERE ROW({old})::pg_catalog.text OPERATOR(pg_catalog.<>) ROW({new})::pg_catalog.text",
            relation = self.relation(),
            all = columns.join(", "),
            at = self.at,
            key = self.table.key.iter().map(|key| name(key)).collect::<Vec<_>>().join(", "),
            set = set.join(", "),
            old = self.columns("q"),
            new = self.columns("EXCLUDED"),
        )
    }

    /// On the primary: fails if rows wait.
    pub(super) fn refuse_rows(&self) -> String {
        carry_out(&format!(
            "BEGIN IF EXISTS (SELECT FROM {}) THEN RAISE EXCEPTION '% has rows that wait', {} \
             USING HINT = 'Let the relay move them first: bulkhead jobs status.'; END IF; END",
            self.relation(),
            source_literal(&self.table),
        ))
    }

    /// On the primary: which of these keys are still there, as `keys` is an array in SQL, unless somebody has the table locked.
    pub(super) fn still_there(&self, keys: &str) -> String {
        format!(
            "SET LOCAL lock_timeout = '{LOOK_PATIENCE}'; SELECT k.key FROM pg_catalog.unnest({keys}) AS k (key) WHERE EXISTS (SELECT FROM {} AS j WHERE {})",
            self.relation(),
            self.has_key("j", "k.key"),
        )
    }
}
