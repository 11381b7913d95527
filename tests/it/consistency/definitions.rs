//! What reads and writes reach by definitions: through whatever lies between a statement and a table, when the definition
//! has just changed, and when the read is of definitions themselves.

use std::time::Duration;

use super::{
    forms::FORMS,
    session::Session,
    world::{Mode, World},
};

/// A table with one row and what is made over it. Each text reads that row's `version` in the end.
const TOLD: &str = "CREATE TABLE told (version bigint); INSERT INTO told VALUES (0);
    CREATE TABLE many AS SELECT n::bigint AS a FROM generate_series(0, 100) n;
    CREATE FUNCTION by_plpgsql() RETURNS bigint LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN (SELECT version FROM told); END $$;
    CREATE FUNCTION by_text() RETURNS bigint LANGUAGE plpgsql STABLE AS
        $$ DECLARE v bigint; BEGIN EXECUTE 'SELECT version FROM to' || 'ld' INTO v; RETURN v; END $$;
    CREATE FUNCTION by_atomic() RETURNS bigint STABLE BEGIN ATOMIC SELECT version FROM told; END;
    CREATE FUNCTION by_immutable() RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN (SELECT version FROM told); END $$;
    CREATE FUNCTION by_another() RETURNS bigint LANGUAGE sql STABLE AS $$ SELECT by_plpgsql() $$;
    CREATE FUNCTION by_default(a bigint DEFAULT by_plpgsql()) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$ SELECT a $$;
    CREATE FUNCTION by_set() RETURNS SETOF told LANGUAGE sql STABLE AS $$ SELECT * FROM told $$;
    CREATE FUNCTION by_attribute(many) RETURNS bigint LANGUAGE sql STABLE AS $$ SELECT version FROM told $$;
    CREATE FUNCTION by_operator(int, int) RETURNS bigint LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN (SELECT version FROM told); END $$;
    CREATE OPERATOR <<<? (leftarg = int, rightarg = int, function = by_operator);
    CREATE TYPE pair AS (one int, two int);
    CREATE FUNCTION by_cast(pair) RETURNS bigint LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN (SELECT version FROM told); END $$;
    CREATE CAST (pair AS bigint) WITH FUNCTION by_cast(pair);
    CREATE FUNCTION by_state(bigint, bigint) RETURNS bigint LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN (SELECT version FROM told); END $$;
    CREATE AGGREGATE by_aggregate(bigint) (sfunc = by_state, stype = bigint);
    CREATE TABLE guarded AS SELECT * FROM many; ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
    ALTER TABLE guarded FORCE ROW LEVEL SECURITY;
    CREATE POLICY p ON guarded USING (a <= (SELECT version FROM told));
    CREATE VIEW one AS SELECT version FROM told; CREATE VIEW two AS SELECT * FROM one;
    CREATE VIEW three AS SELECT by_another() AS version FROM many WHERE a = 0;
    CREATE TABLE above (version bigint); ALTER TABLE told INHERIT above;";

const REACHES: &[&str] = &[
    "TABLE told",
    "SELECT version FROM ONLY told",
    "SELECT version FROM public.told",
    "SELECT version FROM app.public.told",
    "SELECT VERSION FROM TOLD",
    "SELECT version FROM \"told\"",
    "SELECT version FROM above",
    "SELECT by_plpgsql()",
    "SELECT by_text()",
    "SELECT by_atomic()",
    "SELECT by_immutable()",
    "SELECT by_another()",
    "SELECT by_default()",
    "SELECT version FROM by_set()",
    "SELECT version FROM ROWS FROM (by_set())",
    "SELECT many.by_attribute FROM many WHERE a = 0",
    "SELECT by_attribute(many) FROM many WHERE a = 0",
    "SELECT 1 <<<? 2",
    "SELECT ROW(1, 2)::pair::bigint",
    "SELECT CAST((1, 2)::pair AS bigint)",
    "SELECT by_aggregate(a) FROM many",
    "SELECT by_aggregate(a) OVER () FROM many LIMIT 1",
    "SELECT max(a) FROM guarded",
    "SELECT version FROM one",
    "SELECT version FROM two",
    "SELECT version FROM three",
    // The one inside is the table.
    "WITH told AS (SELECT version FROM told) SELECT version FROM told",
    "SELECT version FROM told, (WITH told AS (SELECT 1 AS a) SELECT a FROM told) x",
    "WITH RECURSIVE n(a) AS (SELECT version FROM told UNION ALL SELECT a + 1 FROM n WHERE false) SELECT a FROM n",
    "WITH x AS MATERIALIZED (TABLE told) SELECT (SELECT version FROM x)",
    "SELECT a FROM many ORDER BY a LIMIT 1 OFFSET (SELECT version FROM told)",
    "VALUES ((SELECT version FROM told))",
    "SELECT a FROM many WHERE a IN (SELECT version FROM told)",
    "SELECT a FROM many WHERE EXISTS (SELECT FROM told WHERE version = a)",
    "SELECT (ARRAY(SELECT version FROM told))[1]",
    "SELECT max(a) FROM many GROUP BY a HAVING a = (SELECT version FROM told)",
    "SELECT m.a FROM many m JOIN many n ON m.a = n.a AND n.a = (SELECT version FROM told)",
    "SELECT CASE WHEN true THEN (SELECT version FROM told) END",
    "SELECT coalesce((SELECT version FROM told), 0)",
    "SELECT count(*) FILTER (WHERE a < (SELECT version FROM told)) FROM many",
    "SELECT x.version FROM many, LATERAL (SELECT version FROM told WHERE a = 0) x",
    "SELECT a FROM many WHERE a = 999 UNION ALL SELECT version FROM told",
    "SELECT 1; SELECT version FROM told",
    "BEGIN READ ONLY; SELECT version FROM told; COMMIT",
];

/// A change of definitions, and what a read of them finds then.
const CHANGES: &[(&str, &str, &str)] = &[
    ("CREATE TABLE fresh (a int)", "SELECT count(*) FROM pg_class WHERE relname = 'fresh'", "1"),
    ("CREATE TABLE fresh_two (a int)", "SELECT to_regclass('fresh_two')::text", "fresh_two"),
    ("CREATE TABLE fresh_three (a int)", "SELECT 'fresh_three'::regclass::text", "fresh_three"),
    (
        "CREATE TABLE fresh_four (a int)",
        "SELECT count(*) FROM information_schema.tables WHERE table_name = 'fresh_four'",
        "1",
    ),
    ("CREATE TABLE fresh_five (a int)", "SELECT count(*) FROM fresh_five", "0"),
    ("CREATE TABLE fresh_six AS SELECT 6 AS a", "SELECT a FROM fresh_six", "6"),
    ("SELECT 7 AS a INTO fresh_seven", "SELECT a FROM fresh_seven", "7"),
    ("DROP TABLE fresh", "SELECT count(*) FROM pg_tables WHERE tablename = 'fresh'", "0"),
    ("ALTER TABLE many ADD extra int DEFAULT 7", "SELECT extra FROM many LIMIT 1", "7"),
    (
        "ALTER TABLE many ADD extra_two int",
        "SELECT count(*) FROM information_schema.columns WHERE column_name = 'extra_two'",
        "1",
    ),
    ("ALTER TABLE fresh_two RENAME TO renamed", "SELECT count(*) FROM renamed", "0"),
    ("COMMENT ON TABLE many IS 'said'", "SELECT obj_description('many'::regclass)", "said"),
    ("CREATE TYPE mood AS ENUM ('old')", "SELECT 'old'::mood", "old"),
    ("ALTER TYPE mood ADD VALUE 'new'", "SELECT 'new'::mood", "new"),
    ("ALTER TYPE mood ADD VALUE 'newer'", "SELECT enum_last(NULL::mood)", "newer"),
    ("CREATE FUNCTION answer() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1'", "SELECT answer()", "1"),
    (
        "CREATE OR REPLACE FUNCTION answer() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2'",
        "SELECT answer()",
        "2",
    ),
    (
        "DO $$ BEGIN CREATE OR REPLACE FUNCTION answer() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 3'; END $$",
        "SELECT answer()",
        "3",
    ),
    ("GRANT SELECT ON many TO PUBLIC", "SELECT has_table_privilege('public', 'many', 'select')", "t"),
    ("REVOKE SELECT ON many FROM PUBLIC", "SELECT has_table_privilege('public', 'many', 'select')", "f"),
    ("CREATE SCHEMA another", "SELECT to_regnamespace('another')::text", "another"),
    ("CREATE INDEX by_a ON many (a)", "SELECT count(*) FROM pg_indexes WHERE indexname = 'by_a'", "1"),
    (
        "ALTER ROLE app SET lock_timeout = '9s'",
        "SELECT rolconfig[1] FROM pg_roles WHERE rolname = 'app'",
        "lock_timeout=9s",
    ),
    ("CREATE DOMAIN small AS int CHECK (value < 9)", "SELECT 5::small", "5"),
    ("CREATE VIEW fresh_view AS SELECT 8 AS a", "SELECT a FROM fresh_view", "8"),
];

/// What is made first, a change of definitions, a write, and a read that reaches the write by the change only. The write
/// and the read have been sent before, and were prepared then.
const LATER: &[[&str; 4]] = &[
    [
        "CREATE TABLE l1 AS SELECT 0::bigint AS a; CREATE TABLE m1 AS SELECT 0::bigint AS a;
         CREATE FUNCTION f1() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE m1 SET a = NEW.a; RETURN NEW; END $$",
        "CREATE TRIGGER t AFTER UPDATE ON l1 FOR EACH ROW EXECUTE FUNCTION f1()",
        "UPDATE l1 SET a = a + 1",
        "SELECT a FROM m1",
    ],
    [
        "CREATE TABLE l2 AS SELECT 0::bigint AS a; CREATE TABLE m2 AS SELECT 0::bigint AS a",
        "CREATE RULE r AS ON UPDATE TO l2 DO ALSO UPDATE m2 SET a = NEW.a",
        "UPDATE l2 SET a = a + 1",
        "SELECT a FROM m2",
    ],
    [
        "CREATE TABLE l3 AS SELECT 0::bigint AS a; CREATE TABLE m3 AS SELECT 0::bigint AS a;
         ALTER TABLE l3 ADD PRIMARY KEY (a)",
        "ALTER TABLE m3 ADD FOREIGN KEY (a) REFERENCES l3 ON UPDATE CASCADE",
        "UPDATE l3 SET a = a + 1",
        "SELECT a FROM m3",
    ],
    [
        "CREATE TABLE l4 AS SELECT 0::bigint AS a; CREATE TABLE m4 (a bigint)",
        "ALTER TABLE l4 INHERIT m4",
        "UPDATE l4 SET a = a + 1",
        "SELECT coalesce(max(a), 0) FROM m4",
    ],
    [
        "CREATE TABLE l5 (a bigint NOT NULL); INSERT INTO l5 VALUES (0);
         CREATE TABLE m5 (a bigint NOT NULL) PARTITION BY RANGE (a)",
        "ALTER TABLE m5 ATTACH PARTITION l5 FOR VALUES FROM (0) TO (100)",
        "UPDATE l5 SET a = a + 1",
        "SELECT coalesce(max(a), 0) FROM m5",
    ],
    [
        "CREATE TABLE l6 AS SELECT 0::bigint AS a; CREATE TABLE m6 AS SELECT 0::bigint AS a;
         CREATE VIEW v6 AS SELECT a FROM m6",
        "CREATE OR REPLACE VIEW v6 AS SELECT a FROM l6",
        "UPDATE l6 SET a = a + 1",
        "SELECT a FROM v6",
    ],
    [
        "CREATE TABLE l7 AS SELECT 0::bigint AS a; CREATE TABLE m7 AS SELECT 0::bigint AS a;
         CREATE FUNCTION f7() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT a FROM m7'",
        "CREATE OR REPLACE FUNCTION f7() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT a FROM l7'",
        "UPDATE l7 SET a = a + 1",
        "SELECT f7()",
    ],
    [
        "CREATE TABLE l8 AS SELECT 0::bigint AS a; CREATE TABLE m8 AS SELECT 0::bigint AS a;
         CREATE FUNCTION f8() RETURNS void LANGUAGE sql AS 'UPDATE l8 SET a = a + 1'",
        "CREATE OR REPLACE FUNCTION f8() RETURNS void LANGUAGE sql AS 'UPDATE m8 SET a = a + 1'",
        "SELECT f8()",
        "SELECT a FROM m8",
    ],
    [
        "CREATE TABLE l9 AS SELECT 0::bigint AS a; CREATE TABLE m9 AS SELECT n::bigint AS a FROM generate_series(0, 9) n;
         ALTER TABLE m9 FORCE ROW LEVEL SECURITY; ALTER TABLE m9 ENABLE ROW LEVEL SECURITY;
         CREATE POLICY p ON m9 USING (a = 0)",
        "DROP POLICY p ON m9; CREATE POLICY p ON m9 USING (a <= (SELECT l9.a FROM l9))",
        "UPDATE l9 SET a = a + 1",
        "SELECT max(a) FROM m9",
    ],
];

/// The first column of the last row.
async fn value(session: &mut Session, sql: &str) -> String {
    match session.text(sql).await {
        Ok(rows) => rows.last().and_then(|row| row.first().cloned()).unwrap_or_default(),
        Err(failed) => format!("{}: {}", failed.code, failed.text),
    }
}

async fn prepared_value(session: &mut Session, sql: &str) -> String {
    let Session::Driver(client, _) = session else { panic!("it is a driver's") };
    match client.query_one(sql, &[]).await {
        Ok(row) => row.get::<_, i64>(0).to_string(),
        Err(error) => format!("{error:?}"),
    }
}

struct Scene {
    world: World,
    writer: Session,
    reader: Session,
}

impl Scene {
    async fn start(objects: &str) -> Self {
        let world = World::start(Mode::Tables, 1).await;
        let (mut writer, reader) = (world.session(false).await, world.session(false).await);
        writer.text(objects).await.expect("valid");
        Self { world, writer, reader }
    }

    /// Replicas have all, are read, and stand still.
    async fn stand_still(&mut self) {
        for replica in &self.world.replicas {
            replica.wait_for_replay(&self.world.primary).await;
        }
        self.world.stand_still(&mut self.reader, &FORMS[0][0]).await;
    }
}

fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_see_writes_through_whatever_lies_between() {
    let mut scene = Scene::start(TOLD).await;
    let mut wrong = Vec::new();
    for (version, sql) in (1..).zip(REACHES) {
        scene.stand_still().await;
        let before = value(&mut scene.reader, sql).await;
        scene.writer.text(&format!("UPDATE told SET version = {version}")).await.expect("valid");
        let found = value(&mut scene.reader, sql).await;
        if (before, found.clone()) != ((version - 1).to_string(), version.to_string()) {
            wrong.push(format!("{sql}: {found} is found, {version} is written"));
        }
        scene.world.set_replay(true).await;
    }
    assert_none(&wrong);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_of_definitions_see_their_changes() {
    let mut scene = Scene::start("CREATE TABLE many AS SELECT 0 AS a").await;
    let mut wrong = Vec::new();
    for (change, sql, expected) in CHANGES {
        scene.stand_still().await;
        scene.writer.text(change).await.unwrap_or_else(|failed| panic!("{change}: {failed:?}"));
        // At once, and when the catalog has been read again.
        for after_ms in [0, 600] {
            tokio::time::sleep(Duration::from_millis(after_ms)).await;
            let found = value(&mut scene.reader, sql).await;
            if found != *expected {
                wrong.push(format!("{after_ms} ms after {change}: {sql}: {found}"));
                break;
            }
        }
        scene.world.set_replay(true).await;
    }
    assert_none(&wrong);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_definitions_reaches_what_was_prepared_before() {
    let mut scene = Scene::start("CREATE TABLE many AS SELECT 0 AS a").await;
    let mut wrong = Vec::new();
    for [objects, change, write, read] in LATER {
        scene.writer.text(objects).await.unwrap_or_else(|failed| panic!("{objects}: {failed:?}"));
        scene.stand_still().await;
        scene.world.set_replay(true).await;
        let Session::Driver(client, _) = &scene.writer else { panic!("it is a driver's") };
        let write = client.prepare(write).await.expect("valid");
        let before = prepared_value(&mut scene.reader, read).await;
        assert_eq!(before, "0", "{read}");
        scene.writer.text(change).await.unwrap_or_else(|failed| panic!("{change}: {failed:?}"));
        for version in 1..=2 {
            scene.stand_still().await;
            let Session::Driver(client, _) = &scene.writer else { panic!("it is a driver's") };
            client.execute(&write, &[]).await.expect("valid");
            for found in [value(&mut scene.reader, read).await, prepared_value(&mut scene.reader, read).await]
            {
                if found != version.to_string() {
                    wrong.push(format!("{change}: {read}: {found} is found, {version} is written"));
                }
            }
            scene.world.set_replay(true).await;
        }
    }
    assert_none(&wrong);
}
