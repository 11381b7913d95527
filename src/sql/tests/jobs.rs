//! What job libraries send.

use super::{catalog, rules, verdict};
use crate::sql::{
    Class::{Job, Neutral, Read, Write},
    Effects, Reason,
    Reason::{JobChannel, JobLiteral, JobObject},
    explain,
};

fn are_jobs(reason: Reason, texts: &[&str]) {
    for text in texts {
        let verdict = verdict(text);
        assert_eq!((verdict.class, verdict.reason), (Job, reason), "{text}");
        assert!(!verdict.effects.has(Effects::MIXED), "{text}");
    }
}

#[test]
fn oban() {
    are_jobs(
        JobObject,
        &[
            "WITH \"subset\" AS MATERIALIZED (SELECT s.\"id\" AS \"id\" FROM \"public\".\"oban_jobs\" AS s WHERE s.\"state\" = 'available' AND s.\"queue\" = $1 ORDER BY s.\"priority\" LIMIT $2 FOR UPDATE SKIP LOCKED) UPDATE \"public\".\"oban_jobs\" AS o SET \"state\" = $3 FROM \"subset\" AS f WHERE o.\"id\" = f.\"id\" RETURNING o.\"id\"",
            "UPDATE \"private\".\"oban_jobs\" AS o SET \"state\" = $1 FROM (SELECT i.\"id\" FROM \"private\".\"oban_jobs\" AS i LIMIT 5) AS s WHERE o.\"id\" = s.\"id\"",
            "SELECT DISTINCT o.\"queue\" FROM \"public\".\"oban_jobs\" AS o WHERE NOT (o.\"queue\" IS NULL)",
            "DELETE FROM oban_peers AS o WHERE o.name = $1",
            "INSERT INTO oban_peers AS o (name) VALUES ($1) ON CONFLICT (name) DO UPDATE SET expires_at = $2 WHERE o.node = $3",
            "WITH inserted AS (INSERT INTO public.oban_jobs (a) VALUES ($1) RETURNING *) SELECT i.id, CASE WHEN i.state = 'available' THEN pg_notify('public.oban_insert', 'x') END FROM inserted i",
            "REINDEX INDEX CONCURRENTLY \"public\".oban_jobs_args_index",
            "DROP INDEX CONCURRENTLY public.oban_jobs_state_index",
            "SELECT a.value, \"public\".oban_count_estimate(a.value, 'x') FROM json_array_elements_text($1) AS a",
            "CREATE TYPE public.oban_job_state AS ENUM ('a', 'b')",
            "ALTER TYPE oban_job_state ADD VALUE 'c'",
            "COMMENT ON TABLE public.oban_jobs IS '14'",
            "CREATE TABLE IF NOT EXISTS public.oban_jobs (id bigserial PRIMARY KEY, state oban_job_state)",
            "CREATE INDEX IF NOT EXISTS oban_jobs_args_index ON public.oban_jobs USING gin (args)",
            "ALTER TABLE \"public\".\"oban_jobs\" ADD COLUMN meta jsonb",
            "SELECT $1::oban_job_state",
            "SELECT NULL::public.oban_job_state[]",
            "TRUNCATE oban_jobs, oban_peers RESTART IDENTITY",
            "LOCK TABLE oban_jobs IN SHARE MODE",
            "VACUUM ANALYZE public.oban_jobs",
            "COPY oban_jobs TO STDOUT",
            "COPY oban_jobs (args) FROM STDIN BINARY",
            "EXPLAIN SELECT * FROM oban_jobs",
            "SELECT * FROM OBAN_JOBS",
            "SELECT last_value FROM oban_jobs_id_seq",
            "ALTER SEQUENCE oban_jobs_id_seq RESTART WITH 5",
            "DROP TABLE IF EXISTS public.oban_jobs CASCADE",
            "CREATE UNLOGGED TABLE oban_peers (name text)",
            "GRANT SELECT ON oban_jobs TO x",
            "PREPARE a AS SELECT * FROM oban_jobs",
            "DECLARE c CURSOR WITH HOLD FOR SELECT * FROM oban_jobs",
            "BEGIN; DELETE FROM oban_jobs; COMMIT",
            "TABLE oban_jobs",
        ],
    );
    are_jobs(
        JobChannel,
        &[
            "SELECT pg_notify('public.oban_insert', payload) FROM json_array_elements_text($1::json) AS payload",
            "LISTEN \"public.oban_insert\"; LISTEN \"private.oban_signal\"",
            "UNLISTEN \"public.oban_insert\"",
            "NOTIFY \"public.oban_leader\", 'x'",
        ],
    );
    are_jobs(
        JobLiteral,
        &[
            "SELECT obj_description('public.oban_jobs'::regclass, 'pg_class')",
            "SELECT d.description FROM pg_description d JOIN pg_class c ON c.oid = d.objoid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relname = 'oban_jobs' AND n.nspname = 'public'",
            "SELECT table_name FROM information_schema.tables WHERE table_name = ANY('{oban_jobs,oban_leaders}')",
            "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE starts_with(c.relname, 'oban_jobs')",
            "SELECT 1 FROM pg_class WHERE relname LIKE 'oban_jobs%'",
            "DO $$ BEGIN IF NOT EXISTS (SELECT 1 FROM pg_type WHERE typname = 'oban_job_state') THEN CREATE TYPE \"public\".oban_job_state AS ENUM ('a'); END IF; END $$",
        ],
    );
}

#[test]
fn schemas_that_job_tables_are_to_live_in() {
    are_jobs(
        JobObject,
        &[
            "CREATE SCHEMA IF NOT EXISTS pgboss",
            "CREATE SCHEMA IF NOT EXISTS private",
            "DROP SCHEMA IF EXISTS private CASCADE",
            "DROP SCHEMA pgboss, private",
        ],
    );
    for text in ["CREATE SCHEMA other", "CREATE SCHEMA IF NOT EXISTS public", "DROP SCHEMA public CASCADE"] {
        assert_ne!(verdict(text).class, Job, "{text}");
    }
}

#[test]
fn what_is_changed_of_schemas_and_columns() {
    for (class, text) in [
        (Job, "COMMENT ON COLUMN oban_jobs.state IS 'x'"),
        (Job, "COMMENT ON COLUMN public.oban_jobs.state IS 'x'"),
        (Job, "ALTER SCHEMA private RENAME TO other"),
        (Job, "ALTER SCHEMA other RENAME TO private"),
        (Job, "ALTER SCHEMA pgboss RENAME TO private"),
        (Job, "ALTER SCHEMA other RENAME TO graphile_worker"),
        (Job, "ALTER SCHEMA private OWNER TO app"),
        (Job, "ALTER SCHEMA graphile_worker OWNER TO app"),
        (Write, "ALTER SCHEMA other RENAME TO another"),
        (Write, "ALTER SCHEMA public OWNER TO app"),
        (Write, "ALTER ROLE private RENAME TO another"),
    ] {
        assert_eq!(verdict(text).class, class, "{text}");
    }
}

#[test]
fn other_libraries() {
    are_jobs(
        JobObject,
        &[
            // pg-boss
            "WITH next AS (SELECT id FROM pgboss.job WHERE name = $1 AND state < 'active' LIMIT $2 FOR UPDATE SKIP LOCKED) UPDATE pgboss.job j SET state = 'active' FROM next WHERE j.id = next.id RETURNING j.id",
            "INSERT INTO pgboss.j1f2 (id) SELECT j.id FROM json_to_recordset($1::json) AS j (id uuid) JOIN pgboss.queue q ON true ON CONFLICT DO NOTHING RETURNING id",
            "SELECT pgboss.create_queue($1, $2)",
            "BEGIN; SET LOCAL lock_timeout = '30s'; SELECT pg_advisory_xact_lock(('x' || md5(current_database() || 'a'))::bit(64)::bigint); UPDATE pgboss.version SET cron_on = now(); COMMIT;",
            "DROP SCHEMA pgboss CASCADE",
            "CREATE TYPE pgboss.job_state AS ENUM ('created')",
            // graphile worker
            "SELECT * FROM \"graphile_worker\".add_job(identifier => $1::text, payload => $2::json)",
            "WITH j AS (SELECT q.id FROM \"graphile_worker\"._private_jobs AS q LIMIT 1 FOR UPDATE SKIP LOCKED) UPDATE \"graphile_worker\"._private_jobs AS jobs SET attempts = 1 FROM j WHERE jobs.id = j.id RETURNING *",
            "SELECT current_setting('server_version_num'), (SELECT id FROM \"graphile_worker\".migrations LIMIT 1)",
            "SELECT graphile_worker.add_jobs(array(SELECT json_populate_recordset(null::graphile_worker.job_spec, $1::json)))",
            // procrastinate
            "SELECT unnest(procrastinate_defer_jobs_v1($1::procrastinate_job_to_defer_v1[])) AS id",
            "SELECT * FROM procrastinate_register_worker_v1()",
            "SELECT id FROM procrastinate_fetch_job_v2($1::varchar[], $2)",
            "CREATE INDEX procrastinate_jobs_queue_idx ON procrastinate_jobs (queue_name)",
            "CREATE FUNCTION procrastinate_notify() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$",
            "CREATE TRIGGER t AFTER INSERT ON procrastinate_jobs FOR EACH ROW EXECUTE FUNCTION procrastinate_notify()",
            // river
            "INSERT INTO river_job (id) SELECT nextval('river_job_id_seq'::regclass) ON CONFLICT (unique_key) WHERE river_job_state_in_bitmask(a, b) DO UPDATE SET kind = EXCLUDED.kind RETURNING *",
            "-- name: JobGet :one\nSELECT * FROM river_job WHERE id = $1",
            "COPY \"river_job\" (\"args\") FROM STDIN BINARY",
            // others
            "SELECT \"good_jobs\".* FROM \"good_jobs\" WHERE \"good_jobs\".\"id\" IN (WITH \"rows\" AS MATERIALIZED (SELECT \"good_jobs\".\"id\" FROM \"good_jobs\" LIMIT 9) SELECT \"rows\".\"id\" FROM \"rows\" WHERE pg_try_advisory_lock(('x' || substr(md5('good_jobs' || '-' || \"rows\".\"id\"::text), 1, 16))::bit(64)::bigint) LIMIT 1)",
            "SELECT \"id\" FROM \"solid_queue_ready_executions\" ORDER BY 1 LIMIT 3 FOR UPDATE SKIP LOCKED",
            "SELECT pgmq.send('q', '{}'::jsonb)",
            "SELECT * FROM pgmq.read($1, 30, 1)",
            "UPDATE \"delayed_jobs\" SET locked_at = $1 WHERE id IN (SELECT id FROM \"delayed_jobs\" LIMIT 1 FOR UPDATE) RETURNING *",
            "WITH RECURSIVE jobs AS (SELECT pg_temp.lock_and_update_priorities($1, j) FROM que_jobs j) SELECT * FROM jobs",
            "SELECT * FROM pgqueuer WHERE id = 1",
            "SELECT * FROM dbos.workflow_status",
            "SELECT absurd.spawn_task($1)",
            "CREATE EXTENSION IF NOT EXISTS pgmq CASCADE",
            // custom rules
            "SELECT * FROM work_items",
            "SELECT enqueue_mail(1)",
            "SELECT * FROM my_jobs.anything",
        ],
    );
    are_jobs(
        JobChannel,
        &[
            "LISTEN \"jobs:insert\"; LISTEN \"worker:migrate\";",
            "LISTEN \"procrastinate_queue_v1#default\"",
            "LISTEN pgboss_abc",
            "LISTEN good_job",
            "NOTIFY good_job, '{}'",
            "SELECT pg_notify('work:new', 'x')",
        ],
    );
    are_jobs(
        JobLiteral,
        &[
            "SELECT to_regclass('pgboss.version')",
            "SELECT to_regclass('procrastinate_jobs') IS NOT NULL",
            "SELECT nextval('river_job_id_seq')",
            "SELECT setval('good_job_x_seq', 1)",
            "SELECT pg_get_serial_sequence('river_job', 'id')",
            "SELECT 1 FROM information_schema.schemata WHERE schema_name = 'graphile_worker'",
            "SELECT to_regtype('pgqueuer_status')",
            "SELECT t.typname FROM pg_type t JOIN pg_class c ON c.oid = t.typrelid WHERE c.relname = 'river_job'",
        ],
    );
}

/// Drivers look types up by name: a number of the job database would be another type's on the primary.
#[test]
fn types_are_learnt_from_the_primary() {
    for text in [
        "SELECT t.oid, t.typarray FROM pg_type t LEFT JOIN pg_enum e ON e.enumtypid = t.oid WHERE t.oid = $1::regtype",
        "SELECT oid FROM pg_catalog.pg_type WHERE typname = 'river_job_state'",
        "SELECT a.atttypid FROM pg_type t JOIN pg_attribute a ON a.attrelid = t.typrelid WHERE t.oid = 'river_job_state'::regtype",
    ] {
        let verdict = verdict(text);
        assert!(verdict.class == Write && !verdict.effects.has(Effects::BIND_DECIDES), "{text}: {verdict:?}");
    }
    // More than a look at types.
    assert!(verdict("SELECT $1::regtype").effects.has(Effects::BIND_DECIDES));
    assert_eq!(verdict("SELECT oid FROM pg_type, river_job WHERE typname = 'river_job_state'").class, Job);
}

#[test]
fn what_is_not_a_job() {
    for (class, text) in [
        (Read, "SELECT 'oban_jobs'"),
        (Read, "SELECT * FROM audit WHERE table_name = 'oban_jobs'"),
        (Read, "SELECT * FROM job"),
        (Read, "SELECT * FROM other.oban_jobs"),
        (Read, "WITH oban_jobs AS (SELECT 1) SELECT * FROM oban_jobs"),
        (Read, "SELECT oban_jobs FROM users"),
        (Write, "INSERT INTO logs VALUES ('oban_jobs'), ('pgboss')"),
        (Write, "SELECT pg_notify('app', 'oban_jobs')"),
        (Write, "SELECT relname FROM pg_class WHERE relname = 'users'"),
        (
            Write,
            "CREATE FUNCTION app_trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM graphile_worker.add_job('x'); RETURN NEW; END $$",
        ),
        (Write, "NOTIFY app, 'public.oban_insert'"),
        (Neutral, "SELECT pg_try_advisory_xact_lock($1)"),
        (Neutral, "LISTEN app_events"),
        (Read, "SELECT round(date_part('epoch', now()) * 1000) AS time"),
    ] {
        assert_eq!(verdict(text).class, class, "{text}");
    }
}

#[test]
fn mixed() {
    for text in [
        "INSERT INTO users SELECT * FROM oban_jobs",
        "SELECT * FROM users u JOIN oban_jobs j ON j.user_id = u.id",
        "WITH j AS (INSERT INTO oban_jobs (a) VALUES (1)) UPDATE users SET a = 1",
        "DROP TABLE users, oban_jobs",
        "TRUNCATE users, pgboss.job",
        "CREATE TABLE x (a int REFERENCES pgboss.job)",
        "CREATE TRIGGER t AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION graphile_worker.add()",
        "SELECT graphile_worker.add_job('x', id) FROM users",
    ] {
        let verdict = verdict(text);
        assert_eq!(verdict.class, Job, "{text}");
        assert!(verdict.effects.has(Effects::MIXED), "{text}");
    }
    for text in [
        "SELECT * FROM oban_jobs, pg_class",
        "SELECT * FROM oban_jobs, generate_series(1, 2)",
        "WITH users AS (SELECT 1) SELECT * FROM oban_jobs, users",
        "SELECT * FROM oban_jobs o FOR UPDATE OF o",
    ] {
        assert!(!verdict(text).effects.has(Effects::MIXED), "{text}");
    }
    let explanation = explain(&rules(), &catalog(), b"INSERT INTO users SELECT * FROM public.oban_jobs");
    assert_eq!(explanation.job_tables, ["public.oban_jobs"]);
    assert_eq!(explanation.app_tables, ["users"]);
}

#[test]
fn a_bound_value_may_decide() {
    for text in [
        "SELECT pg_notify($1, payload) FROM json_array_elements_text($2::json) AS payload",
        "SELECT pg_notify($1, $2)",
        "SELECT pg_notify($1::text, $2)",
        "WITH t AS (SELECT concat(coalesce($1::text, current_schema()), '.', $2::text) AS topic) SELECT pg_notify(t.topic, 'x') FROM t",
        "SELECT to_regclass($1)",
        "SELECT $1::regclass",
        "SELECT ($1 || '.version')::regclass",
        "SELECT EXISTS (SELECT FROM information_schema.columns WHERE table_schema = current_schema() AND table_name = $1)",
        "SELECT 1 FROM pg_class WHERE relname = $1::name",
        "SELECT nextval($1)",
    ] {
        assert!(verdict(text).effects.has(Effects::BIND_DECIDES), "{text}");
    }
    for text in [
        "SELECT * FROM users WHERE id = $1",
        "SELECT pg_notify('app', $1)",
        "SELECT pg_try_advisory_xact_lock($1)",
        "SELECT nextval('s'), $1",
        "INSERT INTO t VALUES ($1, $2)",
    ] {
        assert!(!verdict(text).effects.has(Effects::BIND_DECIDES), "{text}");
    }
}
