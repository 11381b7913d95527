//! Calls that add jobs and do nothing else: these may run beside the application's tables.

use super::verdict;
use crate::sql::Effects;

#[test]
fn calls_that_only_add_jobs_are_known() {
    let adds = |text: &str| !verdict(text).effects.has(Effects::JOB_SIDE);
    for text in [
        "SELECT * FROM \"graphile_worker\".add_job(identifier => $1::text, payload => $2::json, job_key => $3::text)",
        "SELECT * FROM graphile_worker.add_jobs(array(SELECT json_populate_recordset(null::graphile_worker.job_spec, $1::json)), $2::boolean)",
        "SELECT graphile_worker.add_job('x', id) FROM users",
        "SELECT pgmq.send('q', '{}'::jsonb)",
        "SELECT * FROM pgmq.send_batch(queue_name => $1, msgs => $2::jsonb[])",
    ] {
        assert!(adds(text), "{text}");
    }
    for text in [
        "SELECT graphile_worker.remove_job('k')",
        "SELECT graphile_worker.add_job('x', (SELECT payload FROM graphile_worker._private_jobs LIMIT 1))",
        "SELECT graphile_worker.complete_jobs(array_agg(id)) FROM users",
        "SELECT pgmq.create('q')",
        "SELECT pgmq.pop('q')",
        "SELECT pgmq.send_topic('a.b', '{}')",
        "SELECT pgmq.send('q', to_jsonb(m)) FROM pgmq.read('q', 30, 1) AS m",
        "SELECT absurd.spawn_task('q', 't', '{}')",
    ] {
        assert!(!adds(text), "{text}");
    }
}
