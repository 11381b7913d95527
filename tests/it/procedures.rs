//! Procedures, DO blocks and functions that set parameters: what they set is carried where its name stands somewhere,
//! and keeps the backend where it does not.

use crate::support::{RawClient, Site, error_code};

async fn custom(client: &mut RawClient, name: &str) -> String {
    client.query_value(&format!("SELECT coalesce(current_setting('{name}', true), '')")).await
}

const HIDDEN: &str = "hidden_settings";

const PROGRAMS: &str = "\
CREATE TABLE notes (a int); GRANT ALL ON notes TO app; \
CREATE PROCEDURE plain(a int) LANGUAGE plpgsql AS $$ BEGIN INSERT INTO notes VALUES (a); END $$; \
CREATE PROCEDURE commits() LANGUAGE plpgsql AS $$ BEGIN UPDATE notes SET a = 2; COMMIT; END $$; \
CREATE PROCEDURE named(v text) LANGUAGE plpgsql AS \
 $$ BEGIN PERFORM set_config('app.named', v, false); SET lock_timeout = '14s'; END $$; \
CREATE PROCEDURE outer_one(v text) LANGUAGE plpgsql AS $$ BEGIN CALL named(v); END $$; \
CREATE FUNCTION in_sql(v text) RETURNS text LANGUAGE sql AS $$ SELECT set_config('app.in_sql', v, false) $$; \
CREATE PROCEDURE computed(n text, v text) LANGUAGE plpgsql AS \
 $$ BEGIN PERFORM set_config('app.' || n, v, false); END $$; \
CREATE PROCEDURE dynamic(n text) LANGUAGE plpgsql AS $$ BEGIN EXECUTE format('SET app.%I = 1', n); END $$; \
CREATE FUNCTION standard(n text) RETURNS text BEGIN ATOMIC SELECT set_config('app.' || n, 'x', false); END";

#[tokio::test]
async fn what_is_set_by_name_is_carried_and_pins_nobody() {
    let site = Site::with_objects(PROGRAMS, 1).await;
    let (mut client, mut other) = (site.client().await, site.client().await);
    for (call, name, value) in [
        ("CALL plain(1)", "app.nothing", ""),
        ("CALL commits()", "app.nothing", ""),
        ("CALL named('one')", "app.named", "one"),
        ("CALL outer_one('two')", "app.named", "two"),
        ("SELECT in_sql('three')", "app.in_sql", "three"),
        ("DO $$ BEGIN PERFORM set_config('App.Done', 'four', false); END $$", "app.done", "four"),
        ("DO $$ BEGIN EXECUTE 'SET app.run = ' || 5; END $$", "app.run", "5"),
        ("BEGIN; CALL outer_one('six'); COMMIT", "app.named", "six"),
    ] {
        assert_eq!(error_code(&client.ask(call).await), None, "{call}");
        // On the only backend there is.
        assert_eq!(custom(&mut other, name).await, "", "{call}: another's setting");
        assert_eq!(other.query_value("SHOW lock_timeout").await, "0", "{call}");
        assert_eq!(custom(&mut client, name).await, value, "{call}");
    }
    assert_eq!(client.query_value("SHOW lock_timeout").await, "14s");
    assert_eq!(custom(&mut client, "app.in_sql").await, "three", "what was found once is asked for again");
    client.ask("DISCARD ALL").await;
    assert_eq!(custom(&mut client, "app.in_sql").await, "");
    site.wait_for_pinned(HIDDEN, 0.0).await;
}

/// What triggers set stays with the session whose write has run them, however it reached their table.
#[tokio::test]
async fn what_triggers_set_is_carried() {
    let site = Site::with_objects(
        "CREATE FUNCTION marks() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN SET lock_timeout = '13s'; PERFORM helper(); RETURN NULL; END $$; \
             CREATE FUNCTION helper() RETURNS void LANGUAGE plpgsql AS \
             $$ BEGIN PERFORM set_config('app.mark', 'left', false); END $$; \
             CREATE TABLE parents (id int PRIMARY KEY); INSERT INTO parents SELECT generate_series(1, 9); \
             CREATE TABLE children (parent int REFERENCES parents ON DELETE CASCADE); \
             INSERT INTO children SELECT generate_series(1, 9); \
             CREATE VIEW seen AS SELECT parent FROM children; \
             CREATE TRIGGER marked AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON children \
             EXECUTE FUNCTION marks(); \
             GRANT ALL ON parents, children, seen TO app",
        1,
    )
    .await;
    let mut other = site.client().await;
    for write in [
        "INSERT INTO children VALUES (1)",
        "WITH gone AS (DELETE FROM children WHERE parent = 2 RETURNING 1) SELECT count(*) FROM gone",
        "DELETE FROM parents WHERE id = 3",
        "UPDATE seen SET parent = 4 WHERE parent = 4",
        "MERGE INTO children USING (SELECT 1) s ON false WHEN NOT MATCHED THEN INSERT VALUES (5)",
        "BEGIN; INSERT INTO children VALUES (6); COMMIT",
        "TRUNCATE children",
        "COPY children FROM STDIN",
    ] {
        let mut client = site.client().await;
        if write.starts_with("COPY") {
            client.query(write).await;
            client.message(b'c', b"").flush().await;
            client.read_until_ready().await;
        } else {
            assert_eq!(error_code(&client.ask(write).await), None, "{write}");
        }
        // On the only backend there is.
        assert_eq!(custom(&mut other, "app.mark").await, "", "{write}: another's setting");
        assert_eq!(other.query_value("SHOW lock_timeout").await, "0", "{write}");
        assert_eq!(custom(&mut client, "app.mark").await, "left", "{write}");
        assert_eq!(client.query_value("SHOW lock_timeout").await, "13s", "{write}");
    }
    site.wait_for_pinned(HIDDEN, 0.0).await;
}

#[tokio::test]
async fn what_is_set_by_a_computed_name_keeps_the_backend() {
    let site = Site::with_objects(PROGRAMS, 2).await;
    let mut other = site.client().await;
    for call in [
        "CALL computed('x', '1')",
        "CALL dynamic('x')",
        "SELECT standard('x')",
        "DO $$ DECLARE n text := 'x'; BEGIN PERFORM set_config('app.' || n, '1', false); END $$",
    ] {
        let mut client = site.client().await;
        assert_eq!(error_code(&client.ask(call).await), None, "{call}");
        site.wait_for_pinned(HIDDEN, 1.0).await;
        for _ in 0..3 {
            assert_eq!(custom(&mut other, "app.x").await, "", "{call}: another's setting");
            assert_ne!(custom(&mut client, "app.x").await, "", "{call}");
        }
        // It cannot run in a transaction.
        assert_eq!(error_code(&client.ask("BEGIN; DISCARD ALL").await).as_deref(), Some("25001"));
        client.ask("ROLLBACK").await;
        site.wait_for_pinned(HIDDEN, 1.0).await;
        assert_eq!(error_code(&client.ask("DISCARD ALL").await), None);
        site.wait_for_pinned(HIDDEN, 0.0).await;
        assert_eq!(custom(&mut client, "app.x").await, "");
        client.terminate().await;
    }
}

#[tokio::test]
async fn procedures_that_were_just_made_are_judged_too() {
    let site = Site::with_objects("GRANT CREATE ON SCHEMA public TO app", 1).await;
    let (mut client, mut other) = (site.client().await, site.client().await);
    for round in 0..5 {
        // No snapshot of the catalog knows them yet.
        let make = format!(
            "CREATE PROCEDURE plain{round}() LANGUAGE plpgsql AS $$ BEGIN PERFORM 1; END $$; \
             CREATE PROCEDURE named{round}() LANGUAGE plpgsql AS \
             $$ BEGIN PERFORM set_config('app.n{round}', 'mine', false); END $$"
        );
        assert_eq!(error_code(&client.ask(&make).await), None);
        assert_eq!(error_code(&client.ask(&format!("CALL plain{round}()")).await), None);
        assert_eq!(error_code(&client.ask(&format!("CALL named{round}()")).await), None);
        let name = format!("app.n{round}");
        assert_eq!(custom(&mut other, &name).await, "", "round {round}");
        assert_eq!(custom(&mut client, &name).await, "mine", "round {round}");
    }
    assert_eq!(error_code(&client.ask("CALL nobody()").await).as_deref(), Some("42883"));
    assert_eq!(other.query_value("SELECT 1").await, "1", "a procedure that does not exist pins nobody");

    let make = "CREATE PROCEDURE computed(n text) LANGUAGE plpgsql AS \
        $$ BEGIN PERFORM set_config('app.' || n, 'mine', false); END $$";
    client.ask(make).await;
    client.ask("CALL computed('y')").await;
    site.wait_for_pinned(HIDDEN, 1.0).await;
    assert_eq!(custom(&mut client, "app.y").await, "mine");
    client.terminate().await;
    assert_eq!(custom(&mut other, "app.y").await, "", "it went with its session");
}
