//! What is said to the servers for one table that is moved. Pure text.
//!
//! Sessions have an empty search path; where the library's own expressions may be evaluated, it is the role's.

use super::super::{
    link::APPLICATION_NAME as RELAY,
    text::{carry_out, literal, name},
};
use super::{
    catalog::{Column, Moved, SCHEMA},
    state::Direction,
};

/// Rows that are copied at once.
pub(super) const CHUNK: usize = 2000;

/// Changed rows that are carried over at once.
pub(super) const CHANGES: usize = 2000;

/// Bytes of rows, as they are stored, that are copied or carried over at once; one row at least.
const BYTES: usize = 8 << 20;

/// Rows are looked up by their keys: to read all of a table for some of them costs more each time that it has grown.
const BY_KEYS: &str = "SET LOCAL enable_hashjoin = off";

const EQUALS: &str = "OPERATOR(pg_catalog.=)";

impl Moved {
    fn of_schema(&self, what: &str) -> String {
        format!("{SCHEMA}.{what}_{}", self.at)
    }

    fn stage(&self) -> String {
        format!("pg_temp.bulkhead_move_stage_{}", self.at)
    }

    /// Where rows come in: going back, a table beside the primary's own.
    pub(super) fn target(&self, direction: Direction) -> String {
        match direction {
            Direction::ToJobs => self.relation(),
            Direction::Back => self.of_schema("back"),
        }
    }

    fn columns(&self, row: &str) -> String {
        let columns: Vec<String> =
            self.columns.iter().map(|column| format!("{row}{}", name(&column.name))).collect();
        columns.join(", ")
    }

    fn keys(&self, row: &str) -> String {
        let keys: Vec<String> = self.key.iter().map(|key| format!("{row}{}", name(&key.name))).collect();
        keys.join(", ")
    }

    /// The bytes of a row `j` as they are stored, which need not be read for that.
    fn bytes(&self) -> String {
        let size =
            |column: &Column| format!("COALESCE(pg_catalog.pg_column_size(j.{}), 0)", name(&column.name));
        self.columns.iter().map(size).collect::<Vec<_>>().join(" + ")
    }

    fn same_key(&self, one: &str, other: &str) -> String {
        let same = self.key.iter().map(|key| format!("{one}.{0} {EQUALS} {other}.{0}", name(&key.name)));
        same.collect::<Vec<_>>().join(" AND ")
    }

    // === The source ===

    /// Has the source note the keys of rows that change, in the transaction that changes them.
    pub(super) fn note(&self) -> Vec<String> {
        let (changes, function, relation) =
            (self.of_schema("change"), self.of_schema("note"), self.relation());
        let of_key: Vec<String> = self
            .key
            .iter()
            .map(|key| format!("{} {}{}", name(&key.name), key.type_name, key.collation))
            .collect();
        // Dropping one that may be there would wait for all who read.
        let trigger = |name: &str, when: &str| {
            carry_out(&format!(
                "BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgname = 'bulkhead_move_{name}' \
                 AND tgrelid = {}::pg_catalog.regclass) THEN CREATE TRIGGER bulkhead_move_{name} {when} \
                 EXECUTE FUNCTION {function}(); END IF; END",
                literal(&relation)
            ))
        };
        vec![
            format!(
                "CREATE TABLE IF NOT EXISTS {changes} (bulkhead_id pg_catalog.int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \
                 bulkhead_truncated pg_catalog.bool NOT NULL DEFAULT false, {})",
                of_key.join(", ")
            ),
            format!(
                "CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER \
                 SET search_path = '' AS {}",
                literal(&self.noting())
            ),
            trigger("note", &format!("AFTER INSERT OR UPDATE OR DELETE ON {relation} FOR EACH ROW")),
            trigger("truncated", &format!("AFTER TRUNCATE ON {relation} FOR EACH STATEMENT")),
            format!("ALTER TABLE {relation} ENABLE ALWAYS TRIGGER bulkhead_move_note"),
            format!("ALTER TABLE {relation} ENABLE ALWAYS TRIGGER bulkhead_move_truncated"),
        ]
    }

    /// The body of the function that notes them.
    fn noting(&self) -> String {
        let changes = self.of_schema("change");
        let add =
            |row: &str| format!("INSERT INTO {changes} ({}) VALUES ({})", self.keys(""), self.keys(row));
        // An instance that is too early would bring the job database's rows, which are older.
        let refuse = if self.is_mirrored {
            format!(
                "IF pg_catalog.current_setting('application_name') = '{RELAY}' THEN RAISE EXCEPTION USING ERRCODE = '55000', \
                 MESSAGE = TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME || ' is being moved to the job database'; END IF;"
            )
        } else {
            String::new()
        };
        format!(
            "BEGIN {refuse} \
             IF TG_OP = 'TRUNCATE' THEN INSERT INTO {changes} (bulkhead_truncated) VALUES (true); RETURN NULL; END IF; \
             IF TG_OP <> 'INSERT' THEN {old}; END IF; \
             IF TG_OP = 'UPDATE' THEN IF ROW({old_key})::pg_catalog.record OPERATOR(pg_catalog.*=) \
             ROW({new_key})::pg_catalog.record THEN RETURN NULL; END IF; END IF; \
             IF TG_OP <> 'DELETE' THEN {new}; END IF; RETURN NULL; END",
            old = add("OLD."),
            new = add("NEW."),
            old_key = self.keys("OLD."),
            new_key = self.keys("NEW."),
        )
    }

    /// Takes that away.
    pub(super) fn forget(&self) -> Vec<String> {
        let relation = self.relation();
        vec![
            format!("DROP TRIGGER IF EXISTS bulkhead_move_note ON {relation}"),
            format!("DROP TRIGGER IF EXISTS bulkhead_move_truncated ON {relation}"),
            format!("DROP FUNCTION IF EXISTS {}()", self.of_schema("note")),
            format!("DROP TABLE IF EXISTS {}", self.of_schema("change")),
        ]
    }

    /// The next rows behind this key, in the order of their keys.
    pub(super) fn chunk(&self, behind: Option<&[String]>) -> String {
        let condition = behind.map_or(String::new(), |behind| {
            let values: Vec<String> = self
                .key
                .iter()
                .zip(behind)
                .map(|(key, value)| format!("{}::{}", literal(value), key.type_name))
                .collect();
            match values.as_slice() {
                [one] => format!("WHERE {} OPERATOR(pg_catalog.>) {one}", self.keys("j.")),
                several => {
                    format!(
                        "WHERE ROW({}) OPERATOR(pg_catalog.>) ROW({})",
                        self.keys("j."),
                        several.join(", ")
                    )
                }
            }
        });
        format!(
            "COPY (SELECT bulkhead_n, true, {columns} FROM (SELECT {columns}, \
             pg_catalog.row_number() OVER (ORDER BY {keys}) AS bulkhead_n, \
             pg_catalog.sum({bytes}) OVER (ORDER BY {keys} ROWS UNBOUNDED PRECEDING) AS bulkhead_bytes FROM (SELECT {columns} \
             FROM {relation} AS j {condition} ORDER BY {keys} LIMIT {CHUNK}) AS j) AS j \
             WHERE bulkhead_n = 1 OR bulkhead_bytes <= {BYTES} ORDER BY bulkhead_n) TO STDOUT",
            keys = self.keys("j."),
            columns = self.columns("j."),
            bytes = self.bytes(),
            relation = self.relation(),
        )
    }

    /// Opens a transaction that forgets changes which were noted, the first ones or all, and gives their rows as they are
    /// now. One statement, so that it sees either both of a change and its note, or none.
    pub(super) fn changes(&self, limit: Option<usize>) -> String {
        let changes = self.of_schema("change");
        // One that changes its key all the time has several notes.
        let chosen = limit.map_or(
            format!("SELECT o.bulkhead_id FROM {changes} AS o WHERE NOT o.bulkhead_truncated"),
            |limit| {
                format!(
                    "SELECT n.bulkhead_id FROM (SELECT o.bulkhead_id, pg_catalog.row_number() OVER w AS n, \
                     pg_catalog.sum(o.bytes) OVER w AS bytes FROM (SELECT o.bulkhead_id, {bytes} AS bytes FROM {changes} AS o \
                     LEFT JOIN {relation} AS j ON {same} WHERE NOT o.bulkhead_truncated ORDER BY o.bulkhead_id LIMIT {limit}\
                     ) AS o WINDOW w AS (ORDER BY o.bulkhead_id ROWS UNBOUNDED PRECEDING)) AS n \
                     WHERE n.n = 1 OR n.bytes <= {BYTES}",
                    bytes = self.bytes(),
                    relation = self.relation(),
                    same = self.same_key("j", "o"),
                )
            },
        );
        let is_key = |column: &str| self.key.iter().any(|key| key.name == column);
        let columns: Vec<String> = self
            .columns
            .iter()
            .map(|column| format!("{}.{}", if is_key(&column.name) { "k" } else { "j" }, name(&column.name)))
            .collect();
        format!(
            "BEGIN; {BY_KEYS}; COPY (WITH gone AS (DELETE FROM {changes} AS c WHERE c.bulkhead_id IN ({chosen}) RETURNING c.*), \
             keys AS (SELECT DISTINCT {keys} FROM gone AS g) \
             SELECT 0, j.{first} IS NOT NULL, {columns} FROM keys AS k LEFT JOIN {relation} AS j ON {same}) TO STDOUT",
            keys = self.keys("g."),
            first = self.key.first().map_or(String::new(), |key| name(&key.name)),
            columns = columns.join(", "),
            relation = self.relation(),
            same = self.same_key("j", "k"),
        )
    }

    /// How many changes were noted that wait.
    pub(super) fn waiting(&self) -> String {
        format!("SELECT pg_catalog.count(*) FROM {}", self.of_schema("change"))
    }

    /// Whether the table was emptied at once.
    pub(super) fn was_truncated(&self) -> String {
        format!("SELECT EXISTS (SELECT FROM {} WHERE bulkhead_truncated)", self.of_schema("change"))
    }

    /// Opens a transaction that forgets it.
    pub(super) fn forget_truncation(&self) -> String {
        format!("BEGIN; DELETE FROM {} WHERE bulkhead_truncated", self.of_schema("change"))
    }

    /// Keeps a copy of the rows as they are.
    pub(super) fn keep(&self) -> [String; 2] {
        let kept = self.of_schema("kept");
        [format!("DROP TABLE IF EXISTS {kept}"), format!("CREATE TABLE {kept} AS TABLE {}", self.relation())]
    }

    /// Takes that copy away.
    pub(super) fn drop_kept(&self) -> String {
        format!("DROP TABLE IF EXISTS {}", self.of_schema("kept"))
    }

    // === The target ===

    /// Where rows go to that come back, until they are all there.
    pub(super) fn make_back(&self) -> [String; 2] {
        let back = self.of_schema("back");
        [
            format!(
                "CREATE TABLE IF NOT EXISTS {back} AS SELECT {} FROM {} AS j WITH NO DATA",
                self.columns("j."),
                self.relation()
            ),
            carry_out(&format!(
                "BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_index WHERE indrelid = {}::pg_catalog.regclass) \
                 THEN ALTER TABLE {back} ADD PRIMARY KEY ({}); END IF; END",
                literal(&back),
                self.keys("")
            )),
        ]
    }

    /// Puts them into the table, whose rows are a copy if it has any, or what only rows on their way have named.
    pub(super) fn put_back(&self) -> String {
        let is_copy = self.is_mirrored || self.is_parent;
        let forget = if is_copy { format!("TRUNCATE {}; ", self.relation()) } else { String::new() };
        format!(
            "{forget}INSERT INTO {} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {}",
            self.relation(),
            self.of_schema("back"),
            columns = self.columns(""),
        )
    }

    /// Takes that away.
    pub(super) fn drop_back(&self) -> String {
        format!("DROP TABLE IF EXISTS {}", self.of_schema("back"))
    }

    /// Once a connection: where rows come in.
    pub(super) fn make_stage(&self) -> String {
        format!(
            "CREATE TEMPORARY TABLE bulkhead_move_stage_{} ON COMMIT DELETE ROWS AS \
             SELECT 0::pg_catalog.int8 AS bulkhead_n, true AS bulkhead_is, {} FROM {} AS j WITH NO DATA",
            self.at,
            self.columns("j."),
            self.relation()
        )
    }

    /// Opens a transaction in which rows come in.
    pub(super) fn opening(&self) -> String {
        format!("BEGIN; SET LOCAL search_path TO DEFAULT; {BY_KEYS}; COPY {} FROM STDIN", self.stage())
    }

    /// Behind a chunk: adds its rows, notes how far the copy is, and tells the last key. What is there already was carried
    /// over by its change.
    pub(super) fn put_chunk(&self, direction: Direction) -> String {
        let texts: Vec<String> =
            self.key.iter().map(|key| format!("s.{}::pg_catalog.text", name(&key.name))).collect();
        let (stage, texts) = (self.stage(), texts.join(", "));
        format!(
            "INSERT INTO {target} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {stage} AS s \
             WHERE NOT EXISTS (SELECT FROM {target} AS t WHERE {same}); \
             UPDATE {SCHEMA}.progress AS p SET last_key = ARRAY[{texts}], \
             rows = p.rows OPERATOR(pg_catalog.+) (SELECT pg_catalog.count(*) FROM {stage}) \
             FROM (SELECT * FROM {stage} ORDER BY bulkhead_n DESC LIMIT 1) AS s WHERE p.source_table {EQUALS} {source}; \
             SELECT {texts} FROM {stage} AS s ORDER BY s.bulkhead_n DESC LIMIT 1",
            target = self.target(direction),
            columns = self.columns(""),
            same = self.same_key("t", "s"),
            source = literal(&self.source()),
        )
    }

    /// Behind changes: rows of their keys go, and come as they are now.
    pub(super) fn put_changes(&self, direction: Direction) -> String {
        let (target, stage) = (self.target(direction), self.stage());
        format!(
            "DELETE FROM {target} AS t USING {stage} AS s WHERE {}; \
             INSERT INTO {target} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {stage} WHERE bulkhead_is",
            self.same_key("t", "s"),
            columns = self.columns(""),
        )
    }

    /// Begins the copy of this table anew.
    pub(super) fn copy_anew(&self, direction: Direction) -> String {
        format!(
            "BEGIN; DELETE FROM {}; UPDATE {SCHEMA}.progress SET last_key = NULL, rows = 0, is_done = false \
             WHERE source_table {EQUALS} {}; COMMIT",
            self.target(direction),
            literal(&self.source())
        )
    }

    // === Both ===

    /// How many rows there are, and what they say: the sum of the hashes of all rows as text, which does not depend on the
    /// order, needs no memory, and can be made by several processes. Servers that keep texts in different encodings have the
    /// same bytes in `UTF8`.
    pub(super) fn digest(&self, relation: &str, is_recoded: bool) -> String {
        let row = format!("ROW({})::pg_catalog.text", self.columns("j."));
        let row = if is_recoded {
            format!("pg_catalog.encode(pg_catalog.convert_to({row}, 'UTF8'), 'hex')")
        } else {
            row
        };
        format!(
            "SELECT pg_catalog.count(*), pg_catalog.sum(pg_catalog.hashtextextended({row} COLLATE pg_catalog.\"C\", 0)) \
             FROM {relation} AS j"
        )
    }
}
