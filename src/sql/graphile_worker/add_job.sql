CREATE OR REPLACE FUNCTION {schema}.add_job(identifier text, payload json DEFAULT NULL, queue_name text DEFAULT NULL,
    run_at timestamp with time zone DEFAULT NULL, max_attempts integer DEFAULT NULL, job_key text DEFAULT NULL,
    priority integer DEFAULT NULL, flags text[] DEFAULT NULL, job_key_mode text DEFAULT 'replace')
RETURNS {schema}._private_jobs LANGUAGE plpgsql AS $bulkhead$
BEGIN
    IF job_key IS NOT NULL AND job_key_mode OPERATOR(pg_catalog.=) 'unsafe_dedupe'::pg_catalog.text THEN
        RETURN {schema}.bulkhead_note_call(
            ROW(identifier, payload, queue_name, run_at, max_attempts, job_key, priority, flags)::{schema}.job_spec,
            job_key_mode);
    END IF;
    -- It calls add_jobs, which notes what has a key, and refuses other modes.
    RETURN {schema}.bulkhead_add_job(identifier => add_job.identifier, payload => add_job.payload,
        queue_name => add_job.queue_name, run_at => add_job.run_at, max_attempts => add_job.max_attempts,
        job_key => add_job.job_key, priority => add_job.priority, flags => add_job.flags,
        job_key_mode => add_job.job_key_mode);
END $bulkhead$
