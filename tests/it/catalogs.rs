//! How the catalog is read: so that nobody's objects answer, only when it has changed, and of databases in use only.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use crate::support::{
    Login, Postgres, Proxy, ProxyConfig, RawClient, Role, Scratch, Site, connect, error_code, eventually,
};

/// Whatever a question may name is somebody else's too, in a schema before PostgreSQL's own in everybody's path. All
/// of it works as PostgreSQL's own does, and says that it was called.
const HIJACKS: &str = r#"
SET search_path = pg_catalog;
CREATE SCHEMA evil;
GRANT ALL ON SCHEMA evil TO PUBLIC;
CREATE FUNCTION evil.mark(what pg_catalog.text) RETURNS pg_catalog.bool LANGUAGE plpgsql VOLATILE AS $$
BEGIN RAISE WARNING 'hijacked: %', what; RETURN true; END $$;
DO $do$
DECLARE o record; n int := 0; names text;
BEGIN
    -- Operators, of the types that catalogs have, as they are and for pairs that PostgreSQL leaves to casts.
    FOR o IN
        SELECT DISTINCT op.name, l.name AS l, r.name AS r
        FROM unnest('{=,<>,<,>,<=,>=,~,!~,||,#,&,|,+,-,*,/,@>,<@}'::text[]) op(name),
             unnest('{oid,int2,int4,int8,text,name,"\"char\"",bool,regproc,regclass,xid,pg_node_tree,oidvector,_text,_oid,numeric,float8}'::text[]) l(name),
             unnest('{oid,int2,int4,int8,text,name,"\"char\"",bool,regproc,regclass,xid,pg_node_tree,oidvector,_text,_oid,numeric,float8}'::text[]) r(name)
        WHERE op.name IN ('=', '<>', '<', '>', '<=', '>=', '~', '!~', '||') OR l.name = r.name
    LOOP
        n := n + 1;
        EXECUTE format('CREATE FUNCTION evil.op%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS $f$ '
            'BEGIN PERFORM evil.mark(%L); RETURN NULL; END $f$',
            n, o.l, o.r, CASE WHEN o.name IN ('||', '#', '&', '|', '+', '-', '*', '/') THEN 'text' ELSE 'bool' END,
            format('operator %s (%s, %s)', o.name, o.l, o.r));
        EXECUTE format('CREATE OPERATOR evil.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = evil.op%s)', o.name, o.l, o.r, n);
    END LOOP;
    -- Functions.
    FOR o IN
        SELECT DISTINCT ON (p.proname, p.proargtypes) p.proname, oidvectortypes(p.proargtypes) AS args, format_type(p.prorettype, NULL) AS ret, p.proretset
        FROM pg_proc p
        WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND p.provariadic = 0
            AND NOT EXISTS (SELECT FROM pg_type t WHERE t.typtype = 'p' AND (t.oid = ANY (p.proargtypes) OR t.oid = p.prorettype))
            AND (p.proname IN ('left', 'lower', 'upper', 'quote_ident', 'quote_literal', 'current_setting', 'set_config',
                'regexp_matches', 'regexp_match', 'regexp_replace', 'strpos', 'substr', 'length', 'replace', 'translate', 'repeat',
                'concat', 'array_to_string', 'date_part', 'now', 'textin', 'split_part', 'encode', 'convert_to', 'oidvectortypes',
                'current_database', 'current_schemas')
                OR p.proname LIKE 'pg\_%' AND p.pronargs <= 2)
    LOOP
        BEGIN
            EXECUTE format('CREATE FUNCTION evil.%I(%s) RETURNS %s %s LANGUAGE plpgsql AS $f$ '
                'BEGIN PERFORM evil.mark(%L); RETURN; END $f$', o.proname, o.args,
                CASE WHEN o.proretset THEN 'SETOF' ELSE '' END, o.ret, 'function ' || o.proname);
        EXCEPTION WHEN OTHERS THEN
            -- Whatever does not end in a plain RETURN.
            EXECUTE format('CREATE FUNCTION evil.%I(%s) RETURNS %s %s LANGUAGE plpgsql AS $f$ '
                'BEGIN PERFORM evil.mark(%L); RETURN NULL; END $f$', o.proname, o.args,
                CASE WHEN o.proretset THEN 'SETOF' ELSE '' END, o.ret, 'function ' || o.proname);
        END;
    END LOOP;
    -- Relations.
    FOR o IN SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relkind IN ('r', 'v')
        AND c.relname NOT LIKE '%statistic%'
    LOOP
        BEGIN
            EXECUTE format('CREATE VIEW evil.%1$I AS SELECT * FROM pg_catalog.%1$I WHERE evil.mark(%2$L)', o.relname, 'relation ' || o.relname);
            EXECUTE format('GRANT SELECT ON evil.%I TO PUBLIC', o.relname);
        EXCEPTION WHEN invalid_table_definition THEN
            NULL; -- A view has no column of the type anyarray.
        END;
    END LOOP;
    -- Types.
    FOREACH names IN ARRAY '{oid,int2,int4,int8,text,name,bool,regclass,regproc,xid,numeric}'::text[] LOOP
        EXECUTE format('CREATE DOMAIN evil.%1$I AS pg_catalog.%1$I CHECK (evil.mark(%2$L))', names, 'type ' || names);
    END LOOP;
END $do$;
-- Aggregates.
CREATE FUNCTION evil.step(pg_catalog.int8, pg_catalog.int8) RETURNS pg_catalog.int8 LANGUAGE plpgsql AS $$
BEGIN PERFORM evil.mark('aggregate'); RETURN 0; END $$;
CREATE AGGREGATE evil.sum(pg_catalog.int8) (SFUNC = evil.step, STYPE = pg_catalog.int8);
-- Also what is found where nobody has changed a path.
CREATE FUNCTION public.ge(pg_catalog.oid, pg_catalog.int4) RETURNS pg_catalog.bool LANGUAGE plpgsql AS $$
BEGIN PERFORM evil.mark('public.>='); RETURN false; END $$;
CREATE OPERATOR public.>= (LEFTARG = pg_catalog.oid, RIGHTARG = pg_catalog.int4, FUNCTION = public.ge);
ALTER DATABASE app SET search_path = evil, public, pg_catalog;
ALTER ROLE app SET search_path = evil, public, pg_catalog;
ALTER DATABASE app SET standard_conforming_strings = off;
ALTER DATABASE app SET quote_all_identifiers = on;
ALTER ROLE app SET statement_timeout = '4s';
RESET search_path;
"#;

async fn hijacked() -> Postgres {
    let primary = Postgres::builder(Role::Primary).setting("log_statement", "all").start();
    primary.query(HIJACKS).await;
    primary
}

/// What of the hijackers' was called, each once.
fn called(primary: &Postgres) -> Vec<String> {
    let log = primary.log();
    let mut marks: Vec<String> = log
        .lines()
        .filter_map(|line| line.split_once("WARNING:  hijacked: ").map(|(_, what)| what.to_owned()))
        .collect();
    marks.sort();
    marks.dedup();
    marks
}

#[tokio::test]
async fn the_hijackers_are_in_place() {
    let primary = hijacked().await;
    let mut client = RawClient::app(primary.port()).await;
    client.ask("SELECT count(*) FROM pg_proc p WHERE p.oid >= 16384 AND p.proname ~ 'x'").await;
    let called = called(&primary);
    for what in ["relation pg_proc", "operator >= (oid, int4)"] {
        assert!(called.iter().any(|mark| mark == what), "{what}: {called:?}");
    }
}

/// After each of these the server is asked what is left of it.
const TALK: &[&str] = &[
    "SET work_mem = '9MB'",
    "SET app.mine = 'x'",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "RESET ALL",
    "PREPARE p AS VALUES (1)",
    "DEALLOCATE p",
    "LISTEN news",
    "UNLISTEN *",
    "DECLARE c CURSOR WITH HOLD FOR VALUES (1)",
    "CLOSE c",
    "CREATE TABLE public.made (a pg_catalog.int4)",
    "DROP TABLE public.made",
    "DO $$ BEGIN NULL; END $$",
    "BEGIN",
    "SET LOCAL work_mem = '8MB'",
    "ROLLBACK",
    "VALUES (1)",
    "DEALLOCATE ALL; TABLE public.nothing",
    "VALUES (1)",
];

#[tokio::test]
async fn nobodys_objects_answer_our_questions() {
    let primary = hijacked().await;
    // Also as a superuser, for whom anything would be done that is called.
    for login in [Login::Admin, Login::App] {
        let config = ProxyConfig::primary_only(&primary)
            .pool("primary", &["primary"], 8)
            .set("servers.primary", "url", primary.url(login))
            .set("limits", "catalog_refresh", "1s")
            .set("auth", "method", "trust");
        let proxy = Proxy::start(&config.to_toml());
        let (mut client, mut other) = (
            RawClient::login(proxy.port(), login, "app").await,
            RawClient::login(proxy.port(), login, "app").await,
        );
        for sql in TALK {
            for client in [&mut client, &mut other] {
                let code = error_code(&client.ask(sql).await);
                assert!(
                    code.as_deref().is_none_or(|code| ["42P07", "42P01"].contains(&code)),
                    "{sql}: {code:?}"
                );
                client.parse("s", "VALUES (1)").close(b'S', "s");
                client.finish().await;
                assert_eq!(called(&primary), Vec::<String>::new(), "{sql}");
            }
        }
        // Read more than once, also by the timer.
        let before = looks(&primary);
        let read = async || (looks(&primary) > before).then_some(());
        eventually("the catalog is read", Duration::from_secs(20), read).await;
        check_and_classify(&config);
        assert_eq!(called(&primary), Vec::<String>::new());
        assert!(!proxy.log().contains("could not be read"), "{}", proxy.log());
    }
}

/// How often a catalog was looked at.
fn looks(primary: &Postgres) -> usize {
    primary.log().matches("REPEATABLE READ, READ ONLY").count()
}

fn check_and_classify(config: &ProxyConfig) {
    let folder = Scratch::new();
    let file = folder.path().join("bulkhead.toml");
    let text = config.to_toml().replace("{listen}", "127.0.0.1:6432").replace("{http}", "127.0.0.1:9930");
    fs::write(&file, text).expect("a writable folder");
    for arguments in [&["check", "--connect"][..], &["classify", "SELECT 1"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
        let output = command.arg("--config").arg(&file).args(arguments).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && !said.contains("could not be read"), "{arguments:?}: {said}");
    }
}

#[tokio::test]
async fn a_catalog_is_read_again_only_if_it_has_changed() {
    let primary = Postgres::builder(Role::Primary).setting("log_statement", "all").start();
    primary.query("CREATE TABLE public.items (a int); CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'").await;
    let config = ProxyConfig::primary_only(&primary)
        .set("limits", "catalog_refresh", "1s")
        .set("auth", "method", "trust");
    let proxy = Proxy::start(&config.to_toml());
    let start: String = bulkhead::sql::Catalog::QUERY.lines().next().unwrap_or_default().to_owned();
    let reads = || primary.log().matches(&start).count();
    let looked = async |more: usize| {
        let before = looks(&primary);
        let enough = async || (looks(&primary) >= before + more).then_some(());
        eventually("the catalog is looked at", Duration::from_secs(30), enough).await;
    };
    looked(3).await;
    assert_eq!(reads(), 1, "nothing has changed");
    // Rows that come and go change nothing, even though the server goes on.
    primary.query("INSERT INTO public.items VALUES (1)").await;
    looked(2).await;
    assert_eq!(reads(), 1, "no definition has changed");
    for sql in [
        "CREATE OR REPLACE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 2'",
        "ALTER FUNCTION public.f() STABLE",
        "CREATE VIEW public.v AS SELECT * FROM public.items",
        "CREATE OR REPLACE VIEW public.v AS SELECT a FROM public.items WHERE public.f() > 0",
        "CREATE POLICY p ON public.items USING (public.f() > 0)",
        "ALTER TABLE public.items ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE public.items SET UNLOGGED",
        "CREATE DOMAIN public.d AS int CHECK (public.f() > 0)",
        "CREATE OPERATOR public.%% (LEFTARG = int, RIGHTARG = int, FUNCTION = int4pl)",
        "DROP VIEW public.v",
    ] {
        let before = reads();
        primary.query(sql).await;
        eventually(sql, Duration::from_secs(20), async || (reads() > before).then_some(())).await;
    }
    drop(proxy);
}

#[tokio::test]
async fn a_database_that_nobody_uses_is_let_go() {
    let site = Site::configured(|config| config.set("limits", "catalog_refresh", "1s"));
    site.primary.query("CREATE DATABASE gone OWNER app").await;
    let client = connect(&Login::App.url(site.proxy.port(), "gone")).await.expect("the database is there");
    client.simple_query("SELECT 1").await.expect("it is served");
    drop(client);
    // Somebody else's connection would keep both from happening.
    eventually("it can be copied", Duration::from_secs(40), async || {
        let admin = site.primary.admin().await;
        admin.batch_execute("CREATE DATABASE another TEMPLATE gone").await.ok()
    })
    .await;
    site.primary.query("DROP DATABASE gone").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!site.proxy.log().contains("could not be read"), "{}", site.proxy.log());
}

#[tokio::test]
async fn a_database_that_cannot_be_read_is_complained_of_once() {
    let site = Site::configured(|config| config.set("limits", "catalog_refresh", "1s"));
    site.primary.query("CREATE DATABASE gone OWNER app").await;
    let client = connect(&Login::App.url(site.proxy.port(), "gone")).await.expect("the database is there");
    client.simple_query("SELECT 1").await.expect("it is served");
    site.primary.query("DROP DATABASE gone WITH (FORCE)").await;
    let complaints = || site.proxy.log().matches("could not be read").count();
    eventually("it is told", Duration::from_secs(20), async || (complaints() > 0).then_some(())).await;
    let began = Instant::now();
    // As long as several attempts take; each one was told before.
    while began.elapsed() < Duration::from_secs(9) {
        assert!(complaints() <= 2, "{}", site.proxy.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(client.simple_query("SELECT 1").await.is_err(), "it is gone");
}

/// Only the first reading is waited for.
#[tokio::test]
async fn a_login_does_not_wait_for_what_is_read_again() {
    const FIRST_READ: Duration = Duration::from_secs(2);
    let site = Site::with_backends(1);
    let mut client = site.client().await;
    client.ask("BEGIN").await;
    let answer = client.ask("CREATE FUNCTION of_mine() RETURNS int LANGUAGE sql AS 'SELECT 1'").await;
    assert_eq!(error_code(&answer), None);
    // Nothing is known now, and the only connection with which to read it is in use.
    let before = Instant::now();
    let mut other = site.client().await;
    let waited = before.elapsed();
    assert!(waited < FIRST_READ, "{waited:?}");
    client.ask("ROLLBACK").await;
    assert_eq!(other.query_value("SELECT 1").await, "1");
}
