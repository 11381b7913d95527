-- Proven in the catalog of proven.rs, one a line.
BEGIN
COMMIT; ROLLBACK
SAVEPOINT a; RELEASE a
SET app.tenant = '1'
SET search_path TO a, b
SET LOCAL work_mem = '1MB'
SET NAMES 'utf8'
SET client_encoding TO 'UTF8'
SET standard_conforming_strings = on
SET TIME ZONE 'UTC'
SET ROLE x
SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY
SET TRANSACTION ISOLATION LEVEL SERIALIZABLE
RESET ALL
RESET search_path
DISCARD ALL
DEALLOCATE a
LISTEN a; UNLISTEN a; NOTIFY a, 'b'
SHOW search_path
SELECT set_config('app.tenant', $1, false)
SELECT set_config('search_path', '', true)
SELECT pg_advisory_lock(1), pg_try_advisory_xact_lock($1)
SELECT * FROM users u JOIN posts USING (id) WHERE u.name = $1 ORDER BY 1 LIMIT 5
SELECT now(), random(), gen_random_uuid(), nextval('a'), currval('a'), pg_notify('a', 'b'), pg_sleep(1)
INSERT INTO users (a) VALUES ($1) ON CONFLICT (a) DO UPDATE SET a = excluded.a RETURNING id
UPDATE stamped SET a = 1
DELETE FROM logged WHERE id = 1
SELECT * FROM audited
SELECT uid(), touch(), log_changes(), similarity('a', 'b')
SELECT app.sets_local()
SELECT 'a'::mood, $1::int[], ARRAY[1]::bigint[], '1 day'::interval
SELECT * FROM pg_class, pg_catalog.pg_settings, information_schema.tables
SELECT json_populate_record(NULL::users, $1), jsonb_to_recordset($1) FROM users AS u(a)
COPY users (a, b) FROM STDIN WITH (FORMAT csv)
COPY (SELECT * FROM users) TO STDOUT
EXPLAIN ANALYZE SELECT * FROM users
DECLARE c CURSOR WITH HOLD FOR SELECT * FROM users
FETCH 5 FROM c; CLOSE c
PREPARE a (int) AS SELECT * FROM users WHERE id = $1
CREATE TEMP TABLE t (id serial PRIMARY KEY, a int DEFAULT 5 CHECK (a > 1), b timestamptz DEFAULT now()) ON COMMIT DROP
CREATE TEMP TABLE t AS SELECT * FROM users
CREATE INDEX i ON users (a, b DESC)
DROP TABLE users
GRANT SELECT ON users TO x
COMMENT ON TABLE users IS 'a'
TRUNCATE users, posts
LOCK TABLE users IN SHARE MODE
VACUUM ANALYZE users
WITH RECURSIVE t AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM t) SELECT * FROM t
MERGE INTO users u USING posts p ON u.id = p.id WHEN MATCHED THEN UPDATE SET a = p.a WHEN NOT MATCHED THEN INSERT VALUES (1)
SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;
