-- None of these does.
SELECT * FROM users u JOIN posts p ON p.user_id = u.id WHERE u.name ILIKE 'a%' AND u.mail = 'x' AND u.tags -> 'a' = 'b'
INSERT INTO users (name) VALUES ('a') ON CONFLICT (id) DO NOTHING RETURNING id
UPDATE users SET name = 'a' WHERE id = 1
DELETE FROM users WHERE id = 1
DELETE FROM posts
SELECT * FROM good_view
SELECT * FROM good_nested
SELECT uid(), good_standard(1)
CALL good_procedure(1)
INSERT INTO disabled VALUES (1)
SELECT * FROM triggered
SELECT * FROM children
SELECT * FROM defaulted
INSERT INTO good_parted VALUES (1)
SELECT * FROM good_index WHERE a % 'b' AND lower(a) = 'c'
INSERT INTO good_index VALUES ('a')
SELECT * FROM good_policy
INSERT INTO good_policy VALUES (1)
INSERT INTO good_types VALUES ('a', 'sad', '{ok}')
SELECT 'a'::good_domain, 'sad'::mood, '{ok}'::mood[]
SELECT 1 <+++> 2, good_aggregate(id) FROM users
SELECT similarity('a', 'b'), digest('a', 'md5'), gen_random_uuid()
SELECT * FROM json_populate_record(NULL::good_types, '{}')
SELECT * FROM app.sales
TRUNCATE audit
VACUUM ANALYZE users
CREATE TEMP TABLE t (LIKE posts INCLUDING ALL)
SELECT * FROM pg_catalog.pg_class c, pg_locks, information_schema.columns
SELECT ROW(1, 2)::good_pair ORDER BY 1
SELECT a FROM of_good_pairs ORDER BY a
