CREATE OR REPLACE FUNCTION {schema}.bulkhead_note_call(spec {schema}.job_spec, job_key_mode text)
RETURNS {schema}._private_jobs LANGUAGE plpgsql AS $bulkhead$
DECLARE
    job {schema}._private_jobs;
BEGIN
    -- Transactions that add the same key come one after the other, as at the library's unique index: so the numbers of its
    -- calls are in the order of their commits.
    -- One number of 64 bits, from a seed of Bulkhead's own: an application's locks hardly meet it.
    PERFORM pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended(
        spec.job_key, pg_catalog.hashtextextended({name}, 7094695996560859492)));
    INSERT INTO {calls} (arguments) VALUES (pg_catalog.json_build_object(
        -- The payload as a text: JSON may have in it what no text can be, and who reads one field reads all.
        'identifier', spec.identifier, 'payload', COALESCE(spec.payload, '{}'::pg_catalog.json)::pg_catalog.text,
        'queue_name', spec.queue_name, 'run_at', COALESCE(spec.run_at, pg_catalog.now()),
        'max_attempts', spec.max_attempts, 'job_key', spec.job_key, 'priority', spec.priority,
        'flags', spec.flags, 'job_key_mode', job_key_mode));
    -- Which job it comes to be, and whether it is one that is there, the job database decides: so there are no numbers.
    job := pg_catalog.json_populate_record(NULL::{schema}._private_jobs, pg_catalog.json_build_object(
        'run_at', COALESCE(spec.run_at, pg_catalog.now()),
        'attempts', 0, 'max_attempts', COALESCE(spec.max_attempts, 25), 'priority', COALESCE(spec.priority, 0),
        'key', spec.job_key, 'created_at', pg_catalog.now(), 'updated_at', pg_catalog.now(),
        'flags', (SELECT pg_catalog.jsonb_object_agg(flag, true) FROM pg_catalog.unnest(spec.flags) AS item (flag))));
    job.payload := COALESCE(spec.payload, '{}'::pg_catalog.json);
    RETURN job;
END $bulkhead$
