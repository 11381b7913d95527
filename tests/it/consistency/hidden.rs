//! Forms of writes, continued: by something that no text names, and by what replaces relations.

use super::forms::{BESIDE, EACH, Form, How::Steps, Kind, STANDARD, TRIGGER, UPDATE_BESIDE};

/// What is written by something that no text names.
pub(super) const HIDDEN: &[Form] = &[
    Form::of("default", Steps(&[UPDATE_BESIDE, "INSERT INTO d_{f} (key, version) VALUES ({k}, {v})"], &[])).with(&[
        STANDARD,
        BESIDE,
        WRITER,
        "CREATE TABLE d_{f} (key int, version bigint, done bool DEFAULT w_{f}())",
    ]),
    Form::of("check", Steps(&[UPDATE_BESIDE, "INSERT INTO d_{f} (key, version) VALUES ({k}, {v})"], &[])).with(&[
        STANDARD,
        BESIDE,
        WRITER,
        "CREATE TABLE d_{f} (key int, version bigint CHECK (w_{f}()))",
    ]),
    Form::of("domain", Steps(&[UPDATE_BESIDE, "SELECT {v}::bigint::d_{f}"], &[])).with(&[
        STANDARD,
        BESIDE,
        WRITER,
        "CREATE DOMAIN d_{f} AS bigint CHECK (w_{f}())",
    ]),
    Form::of("operator", Steps(&["SELECT {k} <<<~ {v}::bigint"], &[])).with(&[
        STANDARD,
        "CREATE FUNCTION w_{f}(k int, v bigint) RETURNS bool LANGUAGE plpgsql AS
         $$ BEGIN UPDATE c_{f} SET version = v WHERE key = k; RETURN true; END $$;
         CREATE OPERATOR <<<~ (leftarg = int, rightarg = bigint, function = w_{f})",
    ]),
    Form::of("policy", Steps(&[UPDATE_BESIDE, "SELECT * FROM d_{f}"], &[])).with(&[
        STANDARD,
        BESIDE,
        WRITER,
        "CREATE TABLE d_{f} AS SELECT 1 AS a; ALTER TABLE d_{f} ENABLE ROW LEVEL SECURITY;
         ALTER TABLE d_{f} FORCE ROW LEVEL SECURITY; CREATE POLICY p ON d_{f} USING (w_{f}())",
    ]),
    Form::of("aggregate", Steps(&[UPDATE_BESIDE, "SELECT a_{f}(1)"], &[])).with(&[
        STANDARD,
        BESIDE,
        WRITER,
        "CREATE FUNCTION s_{f}(state int, value int) RETURNS int LANGUAGE sql AS
         $$ SELECT CASE WHEN w_{f}() THEN 1 END $$;
         CREATE AGGREGATE a_{f}(int) (sfunc = s_{f}, stype = int)",
    ]),
    Form::of("cascade_to_trigger", Steps(&["UPDATE b_{f} SET version = {v} WHERE key = {k}"], &[])).with(&[
        "CREATE TABLE c_{f} (key int PRIMARY KEY, version bigint);
         INSERT INTO c_{f} SELECT n, 0 FROM generate_series(0, {last}) n;
         CREATE TABLE b_{f} (key int, version bigint, PRIMARY KEY (key, version));
         INSERT INTO b_{f} SELECT n, 0 FROM generate_series(0, {last}) n;
         CREATE TABLE d_{f} (key int PRIMARY KEY, version bigint,
             FOREIGN KEY (key, version) REFERENCES b_{f} ON UPDATE CASCADE);
         INSERT INTO d_{f} SELECT n, 0 FROM generate_series(0, {last}) n",
        TRIGGER,
        "CREATE TRIGGER t AFTER UPDATE ON d_{f} FOR EACH ROW EXECUTE FUNCTION t_{f}()",
    ]),
    // The longer name is cut to the shorter one.
    Form::of("long_name", Steps(&["UPDATE c_long_name_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxyyyy SET version = {v} WHERE key = {k}"], &[]))
        .with(&["CREATE TABLE c_long_name_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx (key int PRIMARY KEY, version bigint);
                 INSERT INTO c_long_name_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx SELECT n, 0 FROM generate_series(0, {last}) n"])
        .read_from("c_long_name_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
    Form::of("escaped_name", Steps(&["UPDATE U&\"c_{f}\\005f!\" SET version = {v} WHERE key = {k}"], &[]))
        .with(&["CREATE TABLE \"c_{f}_!\" (key int PRIMARY KEY, version bigint);
                 INSERT INTO \"c_{f}_!\" SELECT n, 0 FROM generate_series(0, {last}) n"])
        .read_from("\"c_{f}_!\""),
];

/// It brings over what is said in another table.
const WRITER: &str = "CREATE FUNCTION w_{f}() RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
    UPDATE c_{f} c SET version = b.version FROM b_{f} b WHERE b.key = c.key AND b.version > c.version;
    RETURN true; END $$";

/// What replaces relations.
pub(super) const DEFINITIONS: &[Form] = &[
    Form::of(
        "truncate",
        Steps(&["BEGIN", "TRUNCATE c_{f}_{k}", "INSERT INTO c_{f}_{k} VALUES ({k}, {v})", "COMMIT"], &[]),
    )
    .with(&[EACH])
    .read_from("c_{f}_{k}")
    .kind(Kind::Replaces),
    Form::of("alter", Steps(&["ALTER TABLE c_{f}_{k} ALTER COLUMN version TYPE bigint USING {v}"], &[]))
        .with(&[EACH])
        .read_from("c_{f}_{k}")
        .kind(Kind::Replaces),
    Form::of(
        "create",
        Steps(
            &[
                "BEGIN",
                "DROP TABLE c_{f}_{k}",
                "CREATE TABLE c_{f}_{k} AS SELECT {k} AS key, {v}::bigint AS version",
                "COMMIT",
            ],
            &[],
        ),
    )
    .with(&[EACH])
    .read_from("c_{f}_{k}")
    .kind(Kind::Replaces),
    Form::of(
        "rename",
        Steps(
            &[
                "BEGIN",
                "CREATE TABLE n_{f}_{k} AS SELECT {k} AS key, {v}::bigint AS version",
                "DROP TABLE c_{f}_{k}",
                "ALTER TABLE n_{f}_{k} RENAME TO c_{f}_{k}",
                "COMMIT",
            ],
            &[],
        ),
    )
    .with(&[EACH])
    .read_from("c_{f}_{k}")
    .kind(Kind::Replaces),
    Form::of(
        "define",
        Steps(&["CREATE OR REPLACE VIEW c_{f}_{k} AS SELECT {k} AS key, {v}::bigint AS version"], &[]),
    )
    .with(&["CREATE VIEW c_{f}_{k} AS SELECT {k} AS key, 0::bigint AS version"])
    .read_from("c_{f}_{k}")
    .kind(Kind::Replaces),
    Form::of(
        "refresh",
        Steps(&["UPDATE b_{f}_{k} SET version = {v}", "REFRESH MATERIALIZED VIEW c_{f}_{k}"], &[]),
    )
    .with(&["CREATE TABLE b_{f}_{k} AS SELECT {k} AS key, 0::bigint AS version;
                 CREATE MATERIALIZED VIEW c_{f}_{k} AS SELECT * FROM b_{f}_{k}"])
    .read_from("c_{f}_{k}")
    .kind(Kind::Replaces),
];
