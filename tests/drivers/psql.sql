-- What people type into psql; run with ON_ERROR_STOP. The test reads the output for the words that it prints.
\set ON_ERROR_STOP on
\pset pager off
CREATE TABLE psql_items (id serial PRIMARY KEY, name text NOT NULL DEFAULT 'none', made timestamptz DEFAULT now());
COMMENT ON TABLE psql_items IS 'things';
\d
\d psql_items
\d+ psql_items
\dt+
\df+ pg_typeof
\l
\du
\conninfo
-- A replica may answer a count before it has replayed the copy: this is about psql, not about replicas.
SET bulkhead.route = 'primary';
\copy psql_items (id, name) FROM PROGRAM 'seq 1 1000 | sed "s/$/ item/; s/ /\t/"'
SELECT count(*) AS copied, count(*) = 1000 AS complete FROM psql_items \gset
\if :complete
\echo copied :copied
\endif
\copy (SELECT id FROM psql_items ORDER BY id DESC LIMIT 1) TO STDOUT
\set FETCH_COUNT 100
SELECT * FROM psql_items \g /dev/null
\unset FETCH_COUNT
BEGIN;
INSERT INTO psql_items (id, name) VALUES (5000, 'gone');
SAVEPOINT s;
\set ON_ERROR_STOP off
SELECT 1 / 0;
\set ON_ERROR_STOP on
ROLLBACK TO s;
ROLLBACK;
SELECT 'rolled back: ' || (count(*) = 1000) FROM psql_items;
SELECT format('CREATE TABLE psql_made_%s ()', n) FROM generate_series(1, 3) AS n \gexec
DROP TABLE psql_items, psql_made_1, psql_made_2, psql_made_3;
\echo all ok
