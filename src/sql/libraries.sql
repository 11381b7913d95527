-- The tables by which job libraries are known (presets.rs): kind "library", name "schema table".
SELECT 'library', n.nspname::pg_catalog.text OPERATOR(pg_catalog.||) ' ' OPERATOR(pg_catalog.||) c.relname::pg_catalog.text
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE c.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
    AND c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p}'::pg_catalog."char"[])
    AND c.relpersistence OPERATOR(pg_catalog.<>) 't'::pg_catalog."char"
    AND c.relname::pg_catalog.text OPERATOR(pg_catalog.=) ANY (ARRAY[
        'oban_jobs', 'oban_queues', 'version', 'migrations', 'procrastinate_jobs', 'river_job', 'good_jobs',
        'solid_queue_jobs', 'que_jobs', 'meta', 'delayed_jobs', 'pgqueuer', 'workflow_status', 'queues'
    ]::pg_catalog.text[])
