-- What applications send, one text a line, in the shapes of pgbench, drivers and ORMs.
-- pgbench
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + 5 WHERE aid = 7;
SELECT abalance FROM pgbench_accounts WHERE aid = $1;
UPDATE pgbench_tellers SET tbalance = tbalance + $1 WHERE tid = $2;
UPDATE pgbench_branches SET bbalance = bbalance + $1 WHERE bid = $2;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES ($1, $2, $3, $4, CURRENT_TIMESTAMP);
END;
vacuum pgbench_branches
truncate pgbench_history
select count(*) from pgbench_branches
-- Django
SELECT "auth_user"."id", "auth_user"."password", "auth_user"."last_login" FROM "auth_user" WHERE "auth_user"."username" = 'a' LIMIT 21
INSERT INTO "django_session" ("session_key", "session_data", "expire_date") VALUES ('a', 'b', '2026-01-01T00:00:00+00:00'::timestamptz)
UPDATE "auth_user" SET "last_login" = '2026-01-01T00:00:00+00:00'::timestamptz WHERE "auth_user"."id" = 1
SELECT COUNT(*) AS "__count" FROM "shop_order" INNER JOIN "shop_customer" ON ("shop_order"."customer_id" = "shop_customer"."id") WHERE ("shop_customer"."active" AND UPPER("shop_order"."note"::text) LIKE UPPER('%a%'))
SELECT "shop_order"."id" FROM "shop_order" WHERE "shop_order"."placed" >= (STATEMENT_TIMESTAMP() - '7 days'::interval) ORDER BY "shop_order"."id" DESC FOR UPDATE SKIP LOCKED
SELECT DATE_TRUNC('day', "shop_order"."placed" AT TIME ZONE 'UTC') AS "day", SUM("shop_order"."total") FROM "shop_order" GROUP BY 1
SELECT (1) AS "a" FROM "shop_order" WHERE "shop_order"."id" = 1 LIMIT 1
DELETE FROM "django_session" WHERE "django_session"."session_key" IN ('a', 'b')
SAVEPOINT "s140_x1"
RELEASE SAVEPOINT "s140_x1"
ROLLBACK TO SAVEPOINT "s140_x1"
SELECT set_config('TimeZone', 'UTC', false)
DECLARE "_django_curs_1_sync_1" NO SCROLL CURSOR WITH HOLD FOR SELECT "shop_order"."id" FROM "shop_order"
SELECT c.relname, CASE WHEN c.relispartition THEN 'p' WHEN c.relkind IN ('m', 'v') THEN 'v' ELSE 't' END, obj_description(c.oid, 'pg_class') FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('f', 'm', 'p', 'r', 'v') AND n.nspname NOT IN ('pg_catalog', 'pg_toast') AND pg_catalog.pg_table_is_visible(c.oid)
-- Rails
SELECT "users".* FROM "users" WHERE "users"."id" = $1 LIMIT $2
SELECT 1 AS one FROM "users" WHERE "users"."email" = $1 AND ("users"."id" != $2) LIMIT $3
INSERT INTO "posts" ("title", "created_at", "updated_at") VALUES ($1, $2, $3) RETURNING "id"
INSERT INTO "posts" ("title") VALUES ('a'), ('b') ON CONFLICT ("title") DO UPDATE SET updated_at=(CASE WHEN ("posts"."title" IS NOT DISTINCT FROM excluded."title") THEN "posts".updated_at ELSE CURRENT_TIMESTAMP END) RETURNING "id"
SELECT COUNT(*) FROM "posts" INNER JOIN "tags" ON "tags"."post_id" = "posts"."id" WHERE "tags"."name" IN ($1, $2)
UPDATE "posts" SET "views" = COALESCE("posts"."views", 0) + $1 WHERE "posts"."id" = $2
SELECT pg_try_advisory_lock(2859260972035668690)
SELECT pg_advisory_unlock(2859260972035668690)
SET client_min_messages TO 'warning'
SET standard_conforming_strings = on
SET SESSION timezone TO 'UTC'
SET intervalstyle = iso_8601
SELECT t.oid, t.typname, t.typelem, t.typdelim, t.typinput, r.rngsubtype, t.typtype, t.typbasetype FROM pg_type as t LEFT JOIN pg_range as r ON oid = rngtypid WHERE t.typname IN ('int2', 'int4') OR t.typtype IN ('r', 'e', 'd') OR t.typinput = 'array_in(cstring,oid,integer)'::regprocedure
SELECT a.attname, format_type(a.atttypid, a.atttypmod), pg_get_expr(d.adbin, d.adrelid), a.attnotnull, a.atttypid, a.atttypmod, c.collname, col_description(a.attrelid, a.attnum) AS comment FROM pg_attribute a LEFT JOIN pg_attrdef d ON a.attrelid = d.adrelid AND a.attnum = d.adnum LEFT JOIN pg_type t ON a.atttypid = t.oid LEFT JOIN pg_collation c ON a.attcollation = c.oid AND a.attcollation <> t.typcollation WHERE a.attrelid = '"users"'::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
SELECT max(oid) FROM pg_type
SHOW max_identifier_length
-- SQLAlchemy
select pg_catalog.version()
select current_schema()
show standard_conforming_strings
SELECT users.id AS users_id, users.name AS users_name FROM users WHERE users.name = 'a' LIMIT 1
SELECT users.id FROM users WHERE users.name = $1::VARCHAR
INSERT INTO users (name, data) SELECT p0::VARCHAR, p1::JSONB FROM (VALUES ($1::VARCHAR, $2::JSONB, 0), ($3::VARCHAR, $4::JSONB, 1)) AS imp_sen(p0, p1, sen_counter) ORDER BY sen_counter RETURNING users.id, users.id AS id__1
SELECT anon_1.id, anon_1.n FROM (SELECT posts.id AS id, row_number() OVER (PARTITION BY posts.user_id ORDER BY posts.id DESC) AS n FROM posts) AS anon_1 WHERE anon_1.n <= $1::INTEGER
SELECT pg_catalog.pg_class.relname FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace ON pg_catalog.pg_namespace.oid = pg_catalog.pg_class.relnamespace WHERE pg_catalog.pg_class.relname = $1::VARCHAR AND pg_catalog.pg_class.relkind = ANY (ARRAY[$2::VARCHAR, $3::VARCHAR]) AND pg_catalog.pg_table_is_visible(pg_catalog.pg_class.oid)
SELECT jsonb_agg(DISTINCT tags.name) FILTER (WHERE tags.name IS NOT NULL) AS names, count(*) FROM tags GROUP BY ROLLUP (tags.kind)
ROLLBACK
COMMIT
-- Ecto
SELECT u0."id", u0."name", u0."inserted_at" FROM "users" AS u0 WHERE (u0."id" = $1)
INSERT INTO "users" ("name","inserted_at","updated_at") VALUES ($1,$2,$3) ON CONFLICT ("name") DO UPDATE SET "updated_at" = EXCLUDED."updated_at" RETURNING "id"
SELECT p0."id" FROM "posts" AS p0 INNER JOIN "users" AS u1 ON u1."id" = p0."user_id" WHERE (p0."user_id" = ANY($1)) ORDER BY p0."user_id"
SELECT count(*) FROM (SELECT TRUE FROM "posts" AS sp0 LIMIT 1) AS s0
UPDATE "posts" AS p0 SET "views" = p0."views" + $1 WHERE (p0."id" = $2)
DELETE FROM "posts" WHERE "id" = $1
SELECT fragment."value" FROM jsonb_array_elements($1::jsonb) AS fragment
begin
savepoint postgrex_query
rollback to savepoint postgrex_query
-- Sequelize, TypeORM, Prisma, knex
START TRANSACTION;
SELECT "id", "name", "createdAt" FROM "Users" AS "User" WHERE "User"."name" = 'a' LIMIT 1;
INSERT INTO "Users" ("id","name") VALUES (DEFAULT,$1) RETURNING "id","name";
UPDATE "Users" SET "name"=$1,"updatedAt"=$2 WHERE "id" = $3
SELECT "User"."id" AS "User_id", "User__posts"."id" AS "User__posts_id" FROM "user" "User" LEFT JOIN "post" "User__posts" ON "User__posts"."userId"="User"."id" WHERE ( (("User"."id" = $1)) ) AND ( "User"."id" IN (1) )
SELECT DISTINCT "distinctAlias"."User_id" AS "ids_User_id" FROM (SELECT "User"."id" AS "User_id" FROM "user" "User") "distinctAlias" ORDER BY "User_id" ASC LIMIT 1
SELECT "public"."User"."id", "public"."User"."email" FROM "public"."User" WHERE ("public"."User"."email" = $1 AND 1=1) LIMIT $2 OFFSET $3
INSERT INTO "public"."User" ("email","createdAt") VALUES ($1,$2) RETURNING "public"."User"."id"
SELECT COUNT(*) FROM (SELECT "public"."User"."id" FROM "public"."User" WHERE 1=1 OFFSET $1) AS "sub"
SET TRANSACTION ISOLATION LEVEL READ COMMITTED
select "users".* from "users" where "users"."id" in ($1, $2) and "deleted_at" is null order by "id" asc
-- Laravel, Doctrine
set names 'utf8'
set search_path to "public"
select * from "sessions" where "id" = $1 limit 1
select exists(select * from "users" where "email" = $1) as "exists"
insert into "jobs_log" ("a", "b") values ($1, $2) on conflict do nothing
update "users" set "remember_token" = $1 where "id" = $2
SELECT t0.id AS id_1, t0.email AS email_2 FROM users t0 WHERE t0.email = $1 LIMIT 1
-- Hibernate, jOOQ, JDBC, Entity Framework
select u1_0.id,u1_0.name from users u1_0 where u1_0.id=$1
select nextval('users_seq')
select next_val as id_val from hibernate_sequence for update of hibernate_sequence
insert into users (name,id) values ($1,$2)
select u1_0.id from users u1_0 order by u1_0.id offset $1 rows fetch first $2 rows only
SET extra_float_digits = 3
SET application_name = 'PostgreSQL JDBC Driver'
SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY
INSERT INTO "Blogs" ("Url") VALUES ($1) RETURNING "BlogId";
SELECT b."BlogId", b."Url" FROM "Blogs" AS b WHERE b."Url" LIKE '%x%' OR strpos(b."Url", $1) > 0 LIMIT $2
SELECT CURRENT_TIMESTAMP(3), now() - interval '1 day', date_part('year', now()), extract(epoch from now())
-- Tenants by row security
SELECT set_config('app.tenant', $1, true)
SET LOCAL app.tenant = '7'
SELECT set_config('search_path', $1, true), set_config($2, $3, true), set_config('role', $4, true), set_config('request.jwt.claims', $5, true)
WITH pgrst_source AS ( SELECT "public"."items".* FROM "public"."items" WHERE "public"."items"."id" = $1 LIMIT $2 OFFSET $3 ) SELECT null::bigint AS total_result_set, pg_catalog.count(_postgrest_t) AS page_total, coalesce(json_agg(_postgrest_t), '[]') AS body, nullif(current_setting('response.headers', true), '') AS response_headers FROM ( SELECT * FROM pgrst_source ) _postgrest_t
DISCARD ALL
RESET ALL
