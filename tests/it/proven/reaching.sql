-- Each of these reaches a function that sets a parameter, takes a lock or leaves something else.
SELECT evil()
SELECT evil_of(1)
SELECT u.evil_of FROM users u
SELECT evil_locks()
SELECT evil_temp()
SELECT evil_listens()
SELECT evil_standard()
SELECT evil_outer()
SELECT evil_nested()
SELECT evil_default()
SELECT evil_strings()
SELECT evil_xml()
SELECT evil_internal('app.x', 'y', false)
CALL evil_procedure()
SELECT app.clock_timestamp()
SELECT * FROM bad_view
SELECT * FROM nested_view
SELECT * FROM direct_view
SELECT * FROM xml_view
SELECT * FROM lock_view
SELECT * FROM operator_view
TABLE nested_view
COPY nested_view TO STDOUT
COPY (SELECT * FROM bad_view) TO STDOUT
EXPLAIN ANALYZE SELECT * FROM bad_view
CREATE TABLE t AS SELECT * FROM bad_view
DECLARE c CURSOR FOR SELECT * FROM bad_view
CREATE TEMP VIEW v AS SELECT evil()
INSERT INTO ruled VALUES (1)
INSERT INTO triggered VALUES (1)
COPY triggered FROM STDIN
WITH a AS (INSERT INTO triggered VALUES (1)) SELECT 1
INSERT INTO conditional VALUES (1)
DELETE FROM grandparents
DELETE FROM parents
TRUNCATE grandparents CASCADE
INSERT INTO parted VALUES (1)
INSERT INTO parted1 VALUES (1)
INSERT INTO keyed VALUES (1)
INSERT INTO keyed1 VALUES (1)
INSERT INTO defaulted VALUES (1)
INSERT INTO defaulted_directly VALUES (1)
INSERT INTO generated VALUES (1)
INSERT INTO checked VALUES (1)
INSERT INTO indexed VALUES (1)
ANALYZE indexed
VACUUM indexed
CLUSTER indexed
REINDEX TABLE indexed
INSERT INTO partly VALUES (1)
SELECT * FROM policed
INSERT INTO policed_writes VALUES (1)
ANALYZE statistic
SELECT 1::bad_domain
SELECT '{1}'::bad_domain[]
SELECT bad_domain(1)
SELECT '{1}'::_bad_domain
SELECT '{[1,2]}'::bad_multirange
SELECT 1::nested_domain
SELECT NULL::default_domain
SELECT ROW(1, 2)::composed
SELECT * FROM json_to_record('{}') AS x (a nested_domain)
SELECT * FROM json_populate_record(NULL::of_composed, '{}')
INSERT INTO domained VALUES (1)
INSERT INTO of_arrays VALUES ('{1}')
INSERT INTO of_composed VALUES (NULL)
SELECT ROW(1, 2)::pair + 1
SELECT a + 1 FROM of_pairs
SELECT 1 <@@> 2
SELECT 1 <@!> 2
SELECT evil_aggregate('y', false)
SELECT evil_final(1)
SELECT '[1,2]'::bad_range
REFRESH MATERIALIZED VIEW bad_materialized
SELECT set_limit(0.5)
SELECT * FROM crosstab('SELECT evil()') AS (a int, b int)
SELECT dblink('x', 'y')
UPDATE pg_settings SET setting = 'x' WHERE name = 'application_name'
UPDATE pg_catalog.pg_settings SET setting = 'x'
ALTER TABLE users ALTER id TYPE int USING evil()
ALTER TABLE parted ATTACH PARTITION x FOR VALUES FROM (evil()) TO (10)
CREATE TABLE t (a int DEFAULT evil())
CREATE TABLE t (LIKE defaulted INCLUDING DEFAULTS)
INSERT INTO conditional_directly VALUES (1)
SELECT NULL::default_directly
INSERT INTO of_default (b) VALUES (1)
SELECT * FROM foreign_table
SELECT * FROM foreign_view
SELECT ROW(1)::sorted ORDER BY 1
SELECT a FROM of_sorted ORDER BY a
INSERT INTO sorted_badly VALUES (1)
