//! A database full of operators and functions that are named as the server's own: Bulkhead's questions call none of them.

use std::{fs, time::Duration};

use super::side::Side;
use crate::support::{Login, Postgres, Proxy, ProxyConfig, Role};

/// Whoever calls is told so, and the server's log has it.
const MARK: &str = "was hijacked";

/// An operator that is nearer to what is compared than the server's own, which takes two of a type.
const NEARER: &str = "\
CREATE FUNCTION public.nearer(oid, int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'nearer was hijacked: %', current_user; RETURN $1 OPERATOR(pg_catalog.>=) $2::oid; END $$;
CREATE OPERATOR public.>= (LEFTARG = oid, RIGHTARG = int, FUNCTION = public.nearer);
CREATE OPERATOR public.< (LEFTARG = oid, RIGHTARG = int, FUNCTION = public.nearer);
CREATE OPERATOR public.> (LEFTARG = oid, RIGHTARG = int, FUNCTION = public.nearer);
CREATE OPERATOR public.= (LEFTARG = oid, RIGHTARG = int, FUNCTION = public.nearer);
CREATE OPERATOR public.<> (LEFTARG = oid, RIGHTARG = int, FUNCTION = public.nearer);
CREATE FUNCTION public.nearer(\"char\", text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'nearer was hijacked: %', current_user; RETURN $1::text OPERATOR(pg_catalog.=) $2; END $$;
CREATE OPERATOR public.= (LEFTARG = \"char\", RIGHTARG = text, FUNCTION = public.nearer);
CREATE OPERATOR public.<> (LEFTARG = \"char\", RIGHTARG = text, FUNCTION = public.nearer);
CREATE FUNCTION public.nearer(name, name) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'nearer was hijacked: %', current_user; RETURN $1 OPERATOR(pg_catalog.=) $2; END $$;
CREATE OPERATOR public.~ (LEFTARG = name, RIGHTARG = name, FUNCTION = public.nearer);
";

/// Every operator of common types, and every function of up to three of them, once more in `public`.
const TWICE: &str = r#"
DO $do$ DECLARE o record; f record; kinds oid[] := ARRAY['oid'::regtype, 'name', 'text', '"char"', 'bool', 'int2', 'int4', 'int8', 'regclass', 'regproc', 'regtype', 'text[]', 'oid[]', 'oidvector', 'interval', 'timestamptz', 'pg_lsn']; BEGIN
    FOR o IN SELECT oid, oprname, oprleft::regtype::text l, oprright::regtype::text r, oprresult::regtype::text t FROM pg_operator
        WHERE oprnamespace = 'pg_catalog'::regnamespace AND oprkind = 'b' AND oprleft = ANY (kinds) AND oprright = ANY (kinds) LOOP
        EXECUTE format('CREATE FUNCTION public.twice_%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION ''%s was hijacked: %%'', current_user; RETURN $1 OPERATOR(pg_catalog.%s) $2; END $$',
            o.oid, o.l, o.r, o.t, 'operator ' || replace(o.oprname, '%', 'percent'), o.oprname);
        EXECUTE format('CREATE OPERATOR public.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = public.twice_%s)', o.oprname, o.l, o.r, o.oid);
    END LOOP;
    FOR f IN SELECT proname, pronargs, pg_get_function_result(oid) t, proargtypes::oid[] a,
            (SELECT string_agg(x::regtype::text, ', ' ORDER BY n) FROM unnest(proargtypes::oid[]) WITH ORDINALITY u(x, n)) l,
            (SELECT string_agg('$' || n, ', ' ORDER BY n) FROM generate_series(1, pronargs) n) p
        FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f' AND NOT proretset AND provariadic = 0
            AND proargtypes::oid[] <@ kinds AND pronargs <= 3 AND (prorettype = ANY (kinds) OR prorettype = 'void'::regtype)
            AND proname ~ '^(current_|pg_|set_config|lower|upper|format|quote|left|length|replace|concat|array_|md5|encode|convert|to_|split|starts|regexp|has_|name|text|oid|bool|int|now|version|strpos|substr|octet|position)' LOOP
        EXECUTE format('CREATE FUNCTION public.%I(%s) RETURNS %s LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION ''%s was hijacked: %%'', current_user; %s pg_catalog.%I(%s); %s END $$',
            f.proname, f.l, f.t, 'function ' || f.proname, CASE WHEN f.t = 'void' THEN 'PERFORM' ELSE 'RETURN' END, f.proname, f.p, '');
    END LOOP;
END $do$;
CREATE TABLE public.pg_class AS SELECT * FROM pg_catalog.pg_class LIMIT 1;
CREATE VIEW public.pg_settings AS SELECT name, setting FROM pg_catalog.pg_settings;
GRANT ALL ON SCHEMA public TO PUBLIC;
"#;

/// Starts Bulkhead as superuser in such a database, lets sessions do what makes it ask, and reads the server's log.
async fn hijacked(objects: &[&str]) -> Vec<String> {
    let primary = Postgres::start(Role::Primary);
    for sql in objects {
        primary.query(sql).await;
    }
    let before = primary.log().len();
    let users = primary.socket_folder().join("users");
    fs::write(&users, "\"app\" \"secret\"\n").expect("the folder is writable");
    let config = ProxyConfig::primary_only(&primary)
        .set("auth", "users_file", users.to_str().expect("the path is text"))
        .set("servers.primary", "url", primary.url(Login::Admin))
        .set("auth", "method", "trust")
        .pool("primary", &["primary"], 2);
    let proxy = Proxy::start(&config.to_toml());
    for user in ["admin", "app"] {
        let parameters = [("user", user), ("database", "app")];
        let Some(mut client) = Side::try_login(proxy.port(), &parameters).await else { continue };
        for sql in [
            "SET app.tenant = 't1'",
            "SELECT 1",
            "DO $$ BEGIN NULL; END $$",
            "CREATE TEMP TABLE mine (a int)",
            "DROP TABLE mine",
            "PREPARE p AS SELECT 1",
            "EXECUTE p",
            "DEALLOCATE p",
            "SET ROLE NONE",
            "RESET ALL",
            "LISTEN here",
            "UNLISTEN here",
            "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
            "CLOSE c",
            "DISCARD ALL",
        ] {
            client.ask(sql).await;
        }
        client.leave().await;
    }
    // Its questions as it starts, and once more for what was made meanwhile.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let log = primary.log();
    let calls = log[before..].lines().filter(|line| line.contains(MARK));
    let mut calls: Vec<_> = calls.filter_map(|line| line.split("ERROR:").nth(1)).map(str::to_owned).collect();
    calls.sort();
    calls.dedup();
    calls
}

#[tokio::test]
async fn no_operator_that_is_nearer_is_called() {
    let calls = hijacked(&[NEARER]).await;
    assert!(calls.is_empty(), "{calls:#?}");
}

#[tokio::test]
async fn nothing_of_the_servers_name_is_called() {
    let calls = hijacked(&[TWICE, "ALTER DATABASE app SET search_path = public, pg_catalog"]).await;
    assert!(calls.is_empty(), "{calls:#?}");
}

#[tokio::test]
async fn nothing_is_called_by_the_path_of_a_role() {
    let path = "ALTER ROLE admin SET search_path = public, pg_catalog; ALTER ROLE app SET search_path = public, pg_catalog";
    let calls = hijacked(&[TWICE, NEARER, path]).await;
    assert!(calls.is_empty(), "{calls:#?}");
}
