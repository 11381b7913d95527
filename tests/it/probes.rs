//! What a session has left is asked of the server under the session's own settings, whatever they are.

use crate::support::{Site, error_code};

#[tokio::test]
async fn a_short_timeout_of_the_session_pins_nobody() {
    let site = Site::start();
    let mut others = [site.client().await, site.client().await];
    for _ in 0..10 {
        let mut client = site.client().await;
        client.ask("SET app.mine = 'x'").await;
        assert_eq!(error_code(&client.ask("SET statement_timeout = '1ms'").await), None);
        // Its own statements may be cut; ours are not.
        client.ask("SET work_mem = '9MB'").await;
        while error_code(&client.ask("RESET statement_timeout").await).is_some() {}
        for other in &mut others {
            assert_eq!(other.query_value("SHOW statement_timeout").await, "0");
        }
        assert_eq!(client.query_value("SHOW app.mine").await, "x");
        client.ask("SET lock_timeout = '1ms'").await;
        assert_eq!(client.query_value("SHOW lock_timeout").await, "1ms");
        site.wait_for_pinned("unknown", 0.0).await;
        client.terminate().await;
    }
}

#[tokio::test]
async fn a_role_that_may_not_read_it_keeps_no_backend() {
    let site = Site::with_objects(
        "CREATE ROLE low; GRANT low TO app; \
             REVOKE EXECUTE ON FUNCTION pg_catalog.pg_lock_status() FROM PUBLIC; \
             GRANT EXECUTE ON FUNCTION pg_catalog.pg_lock_status() TO app",
        2,
    )
    .await;
    let (mut client, mut other) = (site.client().await, site.client().await);
    client.ask("SET ROLE low").await;
    client.ask("SET work_mem = '9MB'").await;
    site.wait_for_pinned("unknown", 0.0).await;
    for _ in 0..3 {
        assert_eq!(
            client.query_value("SELECT concat(current_user, current_setting('work_mem'))").await,
            "low9MB"
        );
        assert_eq!(
            other.query_value("SELECT concat(current_user, current_setting('work_mem'))").await,
            "app4MB"
        );
    }
    client.ask("SELECT pg_advisory_lock(1)").await;
    site.wait_for_pinned("advisory_locks", 1.0).await;
    client.ask("SELECT pg_advisory_unlock(1)").await;
    site.wait_for_pinned("advisory_locks", 0.0).await;
    assert_eq!(client.query_value("SELECT current_user").await, "low");
    assert_eq!(other.query_value("SELECT current_user").await, "app");

    // Nobody may read it: the backend is kept, and the question asked again after every transaction.
    let function = "EXECUTE ON FUNCTION pg_catalog.pg_lock_status()";
    site.primary.query(&format!("REVOKE {function} FROM app")).await;
    client.ask("SET work_mem = '10MB'").await;
    site.wait_for_pinned("unknown", 1.0).await;
    assert_eq!(client.query_value("SHOW work_mem").await, "10MB");
    assert_eq!(other.query_value("SHOW work_mem").await, "4MB");
    site.primary.query(&format!("GRANT {function} TO app")).await;
    assert_eq!(client.query_value("SELECT 1").await, "1");
    site.wait_for_pinned("unknown", 0.0).await;
    assert_eq!(other.query_value("SHOW work_mem").await, "4MB");
    assert_eq!(client.query_value("SHOW work_mem").await, "10MB");
    // Of state that is no setting, too.
    site.primary.query(&format!("REVOKE {function} FROM app")).await;
    client.ask("CREATE TEMP TABLE t (a int)").await;
    site.wait_for_pinned("unknown", 1.0).await;
    site.primary.query(&format!("GRANT {function} TO app")).await;
    client.ask("SELECT 1").await;
    site.wait_for_pinned("temp_objects", 1.0).await;
    client.ask("DROP TABLE t").await;
    site.wait_for_pinned("temp_objects", 0.0).await;
}

/// Everything is equal to nothing, and the functions lie.
const HOSTILE: &str = "\
CREATE SCHEMA hostile; GRANT USAGE ON SCHEMA hostile TO PUBLIC; \
CREATE FUNCTION hostile.never(text, text) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT false'; \
CREATE FUNCTION hostile.never(oid, oid) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT false'; \
CREATE FUNCTION hostile.never(oid, int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT false'; \
CREATE FUNCTION hostile.never(int, int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT false'; \
CREATE OPERATOR hostile.= (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.never); \
CREATE OPERATOR hostile.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.never); \
CREATE OPERATOR hostile.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = hostile.never); \
CREATE OPERATOR hostile.<> (LEFTARG = oid, RIGHTARG = int, FUNCTION = hostile.never); \
CREATE OPERATOR hostile.= (LEFTARG = int, RIGHTARG = int, FUNCTION = hostile.never); \
CREATE FUNCTION hostile.current_setting(text) RETURNS text LANGUAGE sql AS $$ SELECT 'lie' $$; \
CREATE FUNCTION hostile.pg_my_temp_schema() RETURNS oid LANGUAGE sql AS 'SELECT 0::oid'; \
CREATE VIEW hostile.pg_locks AS SELECT 1 AS pid WHERE false";

#[tokio::test]
async fn names_in_the_search_path_do_not_change_the_question() {
    let site = Site::with_objects(HOSTILE, 2).await;
    let (mut client, mut other) = (site.client().await, site.client().await);
    client.ask("SET search_path = hostile, pg_catalog, public").await;
    client.ask("SET app.mine = 'x'").await;
    client.ask("SET work_mem = '9MB'").await;
    assert_eq!(client.query_value("SELECT 'a'::text = 'a'::text").await, "f", "it is hostile");
    for _ in 0..3 {
        assert_eq!(other.query_value("SHOW work_mem").await, "4MB");
        assert_eq!(client.query_value("SHOW work_mem").await, "9MB");
        assert_eq!(client.query_value("SHOW app.mine").await, "x");
        assert_eq!(client.query_value("SHOW search_path").await, "hostile, pg_catalog, public");
    }
    for (make, end, reason) in [
        ("CREATE TEMP TABLE mine (a int)", "DROP TABLE mine", "temp_objects"),
        ("SELECT pg_advisory_lock(42)", "SELECT pg_advisory_unlock(42)", "advisory_locks"),
        ("PREPARE p AS SELECT 1", "DEALLOCATE p", "prepared_statements"),
    ] {
        assert_eq!(error_code(&client.ask(make).await), None, "{make}");
        site.wait_for_pinned(reason, 1.0).await;
        assert_eq!(error_code(&client.ask(end).await), None, "{end}");
        site.wait_for_pinned(reason, 0.0).await;
    }
}
