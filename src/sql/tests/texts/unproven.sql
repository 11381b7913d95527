-- Not proven in the catalog of proven.rs, one a line.
SELECT query_to_xml('SELECT 1', true, true, ''), 1
SELECT query_to_xmlschema('SELECT 1', true, true, '')
SELECT query_to_xml_and_xmlschema('SELECT 1', true, true, '')
SELECT cursor_to_xml('c', 1, true, true, '')
SELECT table_to_xml('evil_view', true, true, '')
SELECT schema_to_xml('s', true, true, '')
SELECT database_to_xml(true, true, '')
SELECT * FROM ts_stat('SELECT evil()')
SELECT ts_rewrite('a'::tsquery, 'SELECT evil()')
SELECT domain_in('a', 'evil_domain'::regtype, -1)
SELECT pg_input_is_valid('a', 'evil_domain')
SELECT lo_import('/x')
SELECT pg_replication_origin_session_setup('a')
SELECT unheard_of(1)
SELECT * FROM unheard_of
SELECT 'a'::unheard_of
SELECT 1 <-#-> 2
SELECT evil()
SELECT EVIL()
SELECT "evil"()
SELECT app.evil()
SELECT (u).evil FROM users u
SELECT u.evil FROM users u
SELECT u.evil_domain FROM users u
SELECT evil_domain(5)
SELECT u.pg_advisory_lock FROM users u
SELECT evil_stable()
SELECT calls_evil()
SELECT sets_dangerous()
SELECT locks()
SELECT reads_view()
SELECT in_python()
SELECT long()
SELECT no_body()
SELECT set_limit(0.5)
SELECT * FROM crosstab('SELECT evil()')
SELECT * FROM evil_view
SELECT * FROM over_view
SELECT * FROM of_domain
INSERT INTO audited VALUES (1)
DELETE FROM parents
UPDATE audited SET a = 1
WITH a AS (UPDATE audited SET a = 1 RETURNING 1) SELECT * FROM a
MERGE INTO audited a USING users ON true WHEN MATCHED THEN DELETE
COPY audited FROM STDIN
COPY evil_view TO STDOUT
COPY (SELECT evil()) TO STDOUT
COPY users FROM STDIN WHERE evil() = 1
COPY users TO PROGRAM 'a'
TRUNCATE audited
EXPLAIN ANALYZE SELECT evil()
EXPLAIN ANALYZE EXECUTE a
EXPLAIN ANALYZE CREATE TABLE t AS SELECT evil()
EXPLAIN ANALYZE DECLARE c CURSOR FOR SELECT evil()
CREATE TABLE t AS SELECT evil()
CREATE TABLE t AS EXECUTE a
SELECT evil() INTO t
DECLARE c CURSOR FOR SELECT evil()
DECLARE c CURSOR FOR SELECT pg_advisory_lock(1)
DECLARE c CURSOR FOR SELECT set_config('app.x', 'y', false)
PREPARE a AS SELECT evil()
PREPARE a (evil_domain) AS SELECT 1
PREPARE a AS SELECT pg_advisory_lock(1)
EXECUTE a
EXECUTE a (evil())
CALL evil()
DO 'BEGIN END'
LOAD 'x'
SELECT 'a'::evil_domain
SELECT 'a'::evil_domain[]
SELECT evil_domain 'a'
SELECT * FROM json_to_record('{}') AS (a evil_domain)
SELECT 1 <@@> 2
SELECT 1 OPERATOR(public.<@@>) 2
SELECT * FROM users ORDER BY a USING <@@>
UPDATE pg_settings SET setting = 1 WHERE name = 'x'
UPDATE pg_catalog.pg_settings SET setting = 1
INSERT INTO pg_proc VALUES (1)
SELECT set_config(name, '1', false) FROM users
SELECT set_config('app.' || $1, '1', false)
SELECT set_config('exit_on_error', 'on', false)
SELECT set_config('client_encoding', 'SJIS', false)
SELECT set_config('standard_conforming_strings', 'off', true)
SELECT set_config('app.é', 'x', false)
SELECT set_config('app.xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx', 'x', false)
SELECT set_config(setting_name => 'app.x', new_value => 'y', is_local => false)
SET exit_on_error = on
SET LOCAL exit_on_error = on
SET standard_conforming_strings = off
SET LOCAL standard_conforming_strings = off
SET client_encoding = 'SJIS'
SET NAMES 'gbk'
RESET client_encoding
SET transaction_isolation = 'serializable'
SET app.xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx = 1
SET app."a-b" = 1
ALTER TABLE users ALTER a TYPE text USING evil()
ALTER TABLE users ADD COLUMN a int DEFAULT evil()
ALTER TABLE users RENAME TO others
ALTER VIEW evil_view RENAME TO users
ALTER FUNCTION evil() RENAME TO lower
ALTER TABLE t SET SCHEMA x
CREATE TABLE t (a int DEFAULT evil())
CREATE TABLE t (a int CHECK (evil() > a))
CREATE TABLE t (a int DEFAULT pg_try_advisory_lock(1)::int)
CREATE TABLE t (a evil_domain)
CREATE TABLE t (LIKE audited INCLUDING ALL)
CREATE TABLE t () INHERITS (audited)
CREATE TABLE t PARTITION OF users FOR VALUES FROM (evil()) TO (1)
CREATE TABLE t (a int) PARTITION BY RANGE (evil(a))
CREATE TEMP VIEW users AS SELECT evil()
CREATE VIEW v AS SELECT 1
CREATE RECURSIVE VIEW v (a) AS SELECT 1
CREATE MATERIALIZED VIEW v AS SELECT evil()
REFRESH MATERIALIZED VIEW evil_view
CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'
CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'
CREATE DOMAIN d AS int
CREATE OPERATOR + (function = evil)
CREATE CAST (users AS int) WITH FUNCTION evil(users)
CREATE RULE r AS ON UPDATE TO users DO ALSO SELECT evil()
CREATE TRIGGER t BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION evil()
CREATE POLICY p ON users USING (evil())
CREATE INDEX i ON users (evil(a))
CREATE INDEX i ON users (a) WHERE evil() = 1
CREATE INDEX i ON users (a evil_ops)
CREATE AGGREGATE a (int) (sfunc = evil, stype = int)
CREATE EXTENSION dblink
CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION evil()
CREATE SCHEMA s CREATE VIEW v AS SELECT 1
IMPORT FOREIGN SCHEMA a FROM SERVER b INTO c
REINDEX TABLE users
VACUUM
ANALYZE audited
this is no SQL
SELECT * FROM users TABLESAMPLE evil (1)
WITH RECURSIVE t AS (SELECT 1 AS a UNION ALL SELECT a FROM t) CYCLE a SET c TO evil_domain 'a' DEFAULT evil_domain 'b' USING p SELECT 1
SELECT JSON_VALUE('{}', '$.a' RETURNING evil_domain)
SELECT JSON_QUERY('{}', '$.a' RETURNING evil_domain)
SELECT JSON_OBJECT('a': 1 RETURNING evil_domain)
SELECT JSON_ARRAYAGG(a RETURNING evil_domain) FROM users
SELECT * FROM JSON_TABLE('{}', '$' COLUMNS (a evil_domain PATH '$.a')) j
SELECT * FROM JSON_TABLE('{}', '$' COLUMNS (NESTED PATH '$.x' COLUMNS (a evil_domain PATH '$.a'))) j
SELECT * FROM XMLTABLE('/a' PASSING '<a/>' COLUMNS b evil_domain PATH 'c') x
SELECT XMLSERIALIZE(CONTENT 'a' AS evil_domain)
SELECT * FROM ROWS FROM (json_to_record('{}') AS (a evil_domain)) x
SELECT 'a'::evil_domain(5)
SELECT x.a FROM users AS x (a, b) WHERE (x).evil = 1
SELECT ((SELECT u FROM users u)).evil
SELECT (ARRAY[1])[evil()]
UPDATE users SET a[evil()] = 1
INSERT INTO users (a[evil()]) VALUES (1)
SELECT U&"\0065vil"()
SELECT "evil" ()
SELECT evil/**/()
SELECT * FROM evil() WITH ORDINALITY
SELECT * FROM users, LATERAL evil() AS x
SELECT 1 ORDER BY evil() DESC NULLS LAST
SELECT DISTINCT evil()
RESET ALL; SELECT count(*) FROM users
