//! New names of job objects by which they are none.

use super::rules;
use crate::sql::renamed_away;

#[test]
fn objects_whose_new_name_is_none_of_jobs() {
    for (text, expected) in [
        ("ALTER SCHEMA private RENAME TO other", "schema private other"),
        ("SELECT 1; ALTER SCHEMA pgboss RENAME TO \"Old Boss\"", "schema pgboss Old Boss"),
        ("ALTER SCHEMA pgboss RENAME TO private", ""),
        ("ALTER SCHEMA other RENAME TO private", ""),
        ("ALTER SCHEMA other RENAME TO another", ""),
        ("ALTER TABLE pgboss.job RENAME TO other", ""),
        ("ALTER SCHEMA private OWNER TO other", ""),
        ("ALTER TABLE oban_jobs RENAME TO old_jobs", "table oban_jobs old_jobs"),
        (
            "ALTER TABLE IF EXISTS ONLY private.oban_jobs RENAME TO \"Old\"",
            "table private.oban_jobs private.Old",
        ),
        ("ALTER TABLE oban_jobs RENAME TO oban_peers", ""),
        ("ALTER TABLE old_jobs RENAME TO oban_jobs", ""),
        ("ALTER TABLE oban_jobs RENAME COLUMN state TO old_state", ""),
        ("ALTER TABLE oban_jobs RENAME CONSTRAINT a TO b", ""),
        ("ALTER INDEX oban_jobs_args_index RENAME TO other", ""),
        ("ALTER TRIGGER a ON oban_jobs RENAME TO b", ""),
        ("ALTER TABLE oban_jobs SET SCHEMA archive", "table oban_jobs archive.oban_jobs"),
        ("ALTER TABLE oban_jobs SET SCHEMA private", ""),
        ("ALTER TABLE pgboss.job SET SCHEMA archive", "table pgboss.job archive.job"),
        ("ALTER VIEW pgboss.one SET SCHEMA archive", "view pgboss.one archive.one"),
        ("ALTER SEQUENCE oban_jobs_id_seq RENAME TO numbers", "sequence oban_jobs_id_seq numbers"),
        ("ALTER TYPE oban_job_state RENAME TO old_state", "type oban_job_state old_state"),
        (
            "ALTER TYPE public.oban_job_state SET SCHEMA archive",
            "type public.oban_job_state archive.oban_job_state",
        ),
        ("ALTER TYPE oban_job_state RENAME VALUE 'a' TO 'b'", ""),
        ("ALTER FUNCTION oban_jobs_notify() RENAME TO notify_all", "function oban_jobs_notify notify_all"),
        (
            "ALTER FUNCTION pgboss.create_queue(text, json) SET SCHEMA public",
            "function pgboss.create_queue public.create_queue",
        ),
    ] {
        let found = renamed_away(&rules(), text.as_bytes());
        let found = found.map(|of| format!("{} {} {}", of.kind, of.from, of.to)).unwrap_or_default();
        assert_eq!(found, expected, "{text}");
    }
}
