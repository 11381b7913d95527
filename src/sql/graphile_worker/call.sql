{schema}.add_job(
    identifier => (c.arguments OPERATOR(pg_catalog.->>) 'identifier'),
    payload => (c.arguments OPERATOR(pg_catalog.->>) 'payload')::pg_catalog.json,
    queue_name => (c.arguments OPERATOR(pg_catalog.->>) 'queue_name'),
    run_at => (c.arguments OPERATOR(pg_catalog.->>) 'run_at')::pg_catalog.timestamptz,
    max_attempts => (c.arguments OPERATOR(pg_catalog.->>) 'max_attempts')::pg_catalog.int4,
    job_key => (c.arguments OPERATOR(pg_catalog.->>) 'job_key'),
    priority => (c.arguments OPERATOR(pg_catalog.->>) 'priority')::pg_catalog.int4,
    flags => CASE WHEN pg_catalog.json_typeof(c.arguments OPERATOR(pg_catalog.->) 'flags') OPERATOR(pg_catalog.=) 'array'
        THEN ARRAY(SELECT pg_catalog.json_array_elements_text(c.arguments OPERATOR(pg_catalog.->) 'flags')) END,
    job_key_mode => (c.arguments OPERATOR(pg_catalog.->>) 'job_key_mode'))
