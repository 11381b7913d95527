CREATE OR REPLACE FUNCTION {schema}.add_jobs(specs {schema}.job_spec[], job_key_preserve_run_at boolean DEFAULT false)
RETURNS SETOF {schema}._private_jobs LANGUAGE plpgsql AS $bulkhead$
DECLARE
    mode pg_catalog.text := CASE WHEN job_key_preserve_run_at THEN 'preserve_run_at' ELSE 'replace' END;
    spec {schema}.job_spec;
BEGIN
    IF (SELECT pg_catalog.count(*) OPERATOR(pg_catalog.>) pg_catalog.count(DISTINCT s.job_key)
        FROM pg_catalog.unnest(specs) AS s WHERE s.job_key IS NOT NULL) THEN
        RAISE cardinality_violation USING MESSAGE = 'two jobs of one call have the same job_key';
    END IF;
    IF EXISTS (SELECT FROM pg_catalog.unnest(specs) AS s WHERE s.job_key IS NULL) THEN
        RETURN QUERY SELECT * FROM {schema}.bulkhead_add_jobs(
            ARRAY(SELECT s FROM pg_catalog.unnest(specs) AS s WHERE s.job_key IS NULL), job_key_preserve_run_at);
    END IF;
    FOR spec IN SELECT * FROM pg_catalog.unnest(specs) AS s WHERE s.job_key IS NOT NULL ORDER BY s.job_key LOOP
        RETURN NEXT {schema}.bulkhead_note_call(spec, mode);
    END LOOP;
END $bulkhead$
