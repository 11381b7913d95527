//! The objects that attackers use: every kind of object of a database through which a statement may run a function,
//! over functions that set, lock, change the role or make temporary tables.

/// Statements of a superuser. The tenants `t1` and `t2` are those of victims; `t3` is what attackers leave.
pub(super) const OBJECTS: &str = r"
GRANT ALL ON SCHEMA public TO PUBLIC;
CREATE SCHEMA other; CREATE SCHEMA evil; GRANT ALL ON SCHEMA other, evil TO PUBLIC;
CREATE TABLE public.place AS SELECT 'public'::text AS place;
CREATE TABLE other.place AS SELECT 'other'::text AS place;
CREATE TABLE public.secrets (tenant text, v text);
INSERT INTO public.secrets SELECT 't' || n, 'secret of t' || n FROM generate_series(1, 5) n;
ALTER TABLE public.secrets ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON public.secrets USING (tenant = current_setting('app.tenant', true));
ALTER TABLE public.secrets FORCE ROW LEVEL SECURITY;

CREATE FUNCTION f_set(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN set_config('app.tenant', $1, false); END $$;
CREATE FUNCTION f_set_stable(text) RETURNS text STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN set_config('app.tenant', $1, false); END $$;
CREATE FUNCTION f_set_fixed(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN set_config('app.tenant', $1, false); END $$;
CREATE FUNCTION f_set_sql(text) RETURNS text LANGUAGE sql AS $$ SELECT set_config('app.tenant', $1, false) $$;
CREATE FUNCTION f_set_sql_stable(text) RETURNS text STABLE LANGUAGE sql AS $$ SELECT set_config('app.tenant', $1, false) $$;
CREATE FUNCTION f_set_body(v text) RETURNS text STABLE LANGUAGE sql RETURN set_config('app.tenant', v, false);
CREATE FUNCTION f_set_bool(text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('app.tenant', $1, false); RETURN true; END $$;
CREATE FUNCTION f_set_bool_stable(text) RETURNS bool STABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('app.tenant', $1, false); RETURN true; END $$;
CREATE FUNCTION f_set_bool_fixed(text) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('app.tenant', $1, false); RETURN true; END $$;
CREATE FUNCTION f_set_rows(text) RETURNS SETOF text STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN NEXT set_config('app.tenant', $1, false); END $$;
CREATE FUNCTION f_execute(text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN EXECUTE $1; RETURN 1; END $$;
CREATE FUNCTION f_execute_stable(text) RETURNS text STABLE LANGUAGE plpgsql AS $$ DECLARE r text; BEGIN EXECUTE $1 INTO r; RETURN r; END $$;
CREATE FUNCTION f_defaulted(a text DEFAULT f_set('t3')) RETURNS text STABLE LANGUAGE sql AS $$ SELECT $1 $$;
CREATE FUNCTION f_lock(bigint) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RETURN pg_try_advisory_lock($1); END $$;
CREATE FUNCTION f_lock_stable(bigint) RETURNS bool STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN pg_try_advisory_lock($1); END $$;
CREATE FUNCTION f_temp() RETURNS int LANGUAGE plpgsql AS $$ BEGIN CREATE TEMP TABLE IF NOT EXISTS left_here (a int); RETURN 1; END $$;
CREATE FUNCTION f_role() RETURNS text STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN set_config('role', 'reader', false); END $$;
CREATE FUNCTION f_path() RETURNS text STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN set_config('search_path', 'other', false); END $$;
CREATE FUNCTION f_timeout() RETURNS text STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN set_config('statement_timeout', '1', false); END $$;
CREATE FUNCTION f_trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('app.tenant', 't3', false); RETURN NEW; END $$;
CREATE FUNCTION f_lock_trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_try_advisory_lock(4711); RETURN NULL; END $$;
CREATE PROCEDURE p_set(text) LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('app.tenant', $1, false); END $$;
CREATE PROCEDURE p_commit(text) LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('app.tenant', $1, false); COMMIT; END $$;

CREATE VIEW v_set AS SELECT set_config('app.tenant', 't3', false) AS x;
CREATE VIEW v_nested AS SELECT x FROM (SELECT x FROM v_set) s;
CREATE VIEW v_function AS SELECT f_set_stable('t3') AS x;
CREATE VIEW v_where AS SELECT 1 AS x FROM place WHERE set_config('app.tenant', 't3', false) = 't3';
CREATE VIEW v_lock AS SELECT pg_try_advisory_lock(4711) AS x;
CREATE VIEW v_role AS SELECT set_config('role', 'reader', false) AS x;
CREATE VIEW v_path AS SELECT set_config('search_path', 'other', false) AS x;
CREATE VIEW v_timeout AS SELECT set_config('statement_timeout', '1', false) AS x;
CREATE VIEW v_temp AS SELECT f_temp() AS x;
CREATE VIEW v_old_strings AS SELECT set_config('standard_conforming_strings', 'off', false) AS x;

CREATE VIEW u_rule AS SELECT 1 AS one;
CREATE RULE r_update AS ON UPDATE TO u_rule DO INSTEAD SELECT set_config('app.tenant', 't3', false);
CREATE RULE r_insert AS ON INSERT TO u_rule DO INSTEAD SELECT set_config('app.tenant', NEW.one::text || 't3', false);
CREATE TABLE t_rule (a int);
CREATE RULE r_also AS ON INSERT TO t_rule DO ALSO SELECT set_config('app.tenant', 't3', false);

CREATE FUNCTION f_operator(text, int) RETURNS text LANGUAGE sql STABLE AS $$ SELECT set_config('app.tenant', $1, false) $$;
CREATE OPERATOR public.@!@ (LEFTARG = text, RIGHTARG = int, FUNCTION = f_operator);
CREATE TYPE carrier AS (x text);
CREATE FUNCTION f_cast(text) RETURNS carrier STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN ROW(set_config('app.tenant', $1, false))::carrier; END $$;
CREATE CAST (text AS carrier) WITH FUNCTION f_cast(text);
CREATE DOMAIN d_set AS text CHECK (f_set_bool_stable(VALUE));
CREATE DOMAIN d_fixed AS text CHECK (f_set_bool_fixed(VALUE));
CREATE FUNCTION f_step(text, text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT set_config('app.tenant', $2, false) $$;
CREATE AGGREGATE a_set (text) (SFUNC = f_step, STYPE = text);
CREATE FUNCTION f_final(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT set_config('app.tenant', 't3', false) $$;
CREATE FUNCTION f_keep(text, text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT $2 $$;
CREATE AGGREGATE a_final (text) (SFUNC = f_keep, STYPE = text, FINALFUNC = f_final);

CREATE TABLE t_trigger (a text);
CREATE TRIGGER tr BEFORE INSERT OR UPDATE ON t_trigger FOR EACH ROW EXECUTE FUNCTION f_trigger();
CREATE TRIGGER tl AFTER DELETE ON t_trigger FOR EACH STATEMENT EXECUTE FUNCTION f_lock_trigger();
CREATE TRIGGER tt AFTER TRUNCATE ON t_trigger FOR EACH STATEMENT EXECUTE FUNCTION f_trigger();
CREATE TABLE t_deferred (a text);
CREATE CONSTRAINT TRIGGER td AFTER INSERT ON t_deferred DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION f_trigger();
CREATE VIEW v_instead AS SELECT 1 AS a;
CREATE TRIGGER ti INSTEAD OF UPDATE ON v_instead FOR EACH ROW EXECUTE FUNCTION f_trigger();
CREATE TABLE t_default (a text DEFAULT f_set('t3'), b int);
CREATE TABLE t_generated (a text, b text GENERATED ALWAYS AS (f_set_fixed(a)) STORED);
CREATE TABLE t_index (a text); CREATE INDEX ON t_index (f_set_fixed(a));
CREATE TABLE t_partial (a text); CREATE INDEX ON t_partial (a) WHERE f_set_bool_fixed(a);
CREATE TABLE t_check (a text CHECK (f_set_bool_stable(a)));
CREATE TABLE t_domain (a d_set);
CREATE TABLE t_policy (a text); INSERT INTO t_policy VALUES ('t3');
ALTER TABLE t_policy ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON t_policy USING (f_set_bool_stable(a));
CREATE TABLE t_part (a text) PARTITION BY LIST (a);
CREATE TABLE t_part_key (a text) PARTITION BY LIST (f_set_fixed(a));
CREATE TABLE t_part_key_any PARTITION OF t_part_key DEFAULT;
CREATE TABLE t_alter (a text); INSERT INTO t_alter VALUES ('t3');
CREATE STATISTICS s_set ON (f_set_fixed(a)), a FROM t_alter;

CREATE FUNCTION evil.lower(text) RETURNS text STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN pg_catalog.set_config('app.tenant', $1, false); END $$;
CREATE FUNCTION evil.f_plus(int, int) RETURNS int STABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_catalog.set_config('app.tenant', 't3', false); RETURN 3; END $$;
CREATE OPERATOR evil.+ (LEFTARG = int, RIGHTARG = int, FUNCTION = evil.f_plus);
CREATE VIEW evil.place AS SELECT pg_catalog.set_config('app.tenant', 't3', false) AS place;
CREATE FUNCTION evil.now() RETURNS text STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN pg_catalog.set_config('app.tenant', 't3', false); END $$;
CREATE FUNCTION f_event() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_catalog.set_config('app.tenant', 't3', false); END $$;
CREATE EVENT TRIGGER e_sequence ON ddl_command_end WHEN TAG IN ('CREATE SEQUENCE') EXECUTE FUNCTION f_event();
GRANT ALL ON ALL TABLES IN SCHEMA public, other, evil TO PUBLIC;
DO $$ DECLARE t text; BEGIN
    FOR t IN SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname LIKE 't\_%' AND relkind IN ('r', 'p') LOOP
        EXECUTE format('ALTER TABLE public.%I OWNER TO app', t);
    END LOOP; END $$;
ALTER TABLE t_policy OWNER TO admin;
";

/// What the server itself needs, once.
pub(super) const ROLES: &str = "CREATE ROLE reader; GRANT reader TO app, app_trust; \
    ALTER ROLE app_trust SET standard_conforming_strings = off";

/// Logins without passwords, which cost nothing: there are thousands.
pub(super) const TRUST: &str = "\
DO $$ BEGIN EXECUTE format('COPY (VALUES (''local all all trust''), (''local replication all trust''), \
    (''host all all all trust'')) TO %L', current_setting('hba_file')); END $$; \
SELECT pg_reload_conf()";
