//! What another version of Bulkhead has installed: it is told of, goes on, and `bulkhead jobs init` makes it anew.

use super::{Yard, bulkhead};

/// All that is ours on the primary, as it is there: functions with their owner and who may run them, and columns.
const OURS: &str = "SELECT p.oid::regprocedure::text, pg_get_functiondef(p.oid), p.proowner::regrole::text, p.proacl::text \
    FROM pg_proc AS p WHERE p.prosrc LIKE '%bulkhead%' OR p.proname LIKE 'bulkhead%' OR p.pronamespace = 'bulkhead'::regnamespace \
    UNION ALL SELECT attrelid::regclass::text, attname, format_type(atttypid, atttypmod), attnotnull::text \
    FROM pg_attribute JOIN pg_class AS c ON c.oid = attrelid WHERE relnamespace = 'bulkhead'::regnamespace AND attnum > 0 \
    ORDER BY 1, 2";

/// As another version might have made them: with another body, with other names of arguments, and with another type.
const FORMER: &str = "
    SET ROLE app;
    DO $$ DECLARE f regprocedure; BEGIN
        FOREACH f IN ARRAY ARRAY['graphile_worker.add_jobs(graphile_worker.job_spec[], boolean)', 'bulkhead.refuse()']::regprocedure[] LOOP
            EXECUTE replace(pg_get_functiondef(f), 'BEGIN', 'BEGIN /* as before */');
        END LOOP;
        f := 'graphile_worker.bulkhead_note_call(graphile_worker.job_spec, text)'::regprocedure;
        EXECUTE format('DROP FUNCTION %s', f) || ';' || 
            replace(replace(pg_get_functiondef(f), 'job_key_mode text', 'mode text'), 'BEGIN', 'BEGIN /* as before */');
    END $$;
    ALTER TABLE bulkhead.refused ALTER COLUMN row TYPE jsonb USING row::jsonb";

#[tokio::test]
async fn init_makes_anew_what_another_version_has_made() {
    let yard = Yard::of_graphile().await;
    let config = yard.graphile();
    let ours = yard.primary.query(OURS).await;
    yard.primary.query("INSERT INTO bulkhead.refused (source_table, key, row, error) VALUES ('t', 'k', '{\"a\": 1}', '')").await;
    yard.primary.query(FORMER).await;
    assert_ne!(yard.primary.query(OURS).await, ours);

    // It goes on, and tells.
    let proxy = yard.bulkhead(&config).await;
    let told = "bulkhead.refused, bulkhead.refuse(), graphile_worker.add_jobs(), graphile_worker.bulkhead_note_call() on the \
        primary is as another version of Bulkhead has made it: run `bulkhead jobs init`";
    proxy.wait_for_log(told).await;
    yard.primary.query("SELECT graphile_worker.add_job('plain')").await;
    yard.wait_until_empty().await;
    let (code, text) = bulkhead(&config, &["jobs", "verify"]);
    assert!(code == Some(64) && text.contains(told), "{text}");
    let (code, text) = bulkhead(&config, &["jobs", "status"]);
    assert!(code == Some(0) && text.contains(&format!("outdated     {told}")), "{text}");

    let (code, planned) = bulkhead(&config, &["jobs", "init", "--dry-run"]);
    assert!(code == Some(0) && planned.contains("ALTER COLUMN row TYPE pg_catalog.json"), "{planned}");
    assert_ne!(yard.primary.query(OURS).await, ours, "a plan changes nothing");
    let (code, text) = bulkhead(&config, &["jobs", "init"]);
    assert!(code == Some(0) && text.starts_with(&planned), "{text}");
    assert_eq!(yard.primary.query(OURS).await, ours);
    assert_eq!(yard.primary.value("SELECT row FROM bulkhead.refused").await, "{\"a\": 1}");
    let (code, text) = bulkhead(&config, &["jobs", "init"]);
    assert!(code == Some(0) && text.starts_with("nothing is to be done"), "{text}");
    let (code, text) = bulkhead(&config, &["jobs", "verify"]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = bulkhead(&config, &["jobs", "status"]);
    assert!(code == Some(0) && !text.contains("outdated"), "{text}");
}
