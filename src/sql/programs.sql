SELECT 'program', pg_catalog.concat(pg_catalog.quote_ident(p.proname), ' ', p.prosrc,
           -- A body in standard SQL is kept as a tree; 2078 is set_config.
           CASE WHEN pg_catalog.jsonb_extract_path_text(pg_catalog.to_jsonb(p), 'prosqlbody')
                    OPERATOR(pg_catalog.~) ':funcid 2078 ' THEN ' set_config' END)
FROM pg_catalog.pg_proc p
WHERE p.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid AND (
    p.prosrc OPERATOR(pg_catalog.~*) 'set_config|\mset\s+((session|local)\s+)?[\w$"]+\s*\.'
    OR p.prosrc OPERATOR(pg_catalog.~*)
        '(^|;|''|"|\$|/|>|\(|\mbegin|\mthen|\melse|\mloop|--[^\n]*\n)\s*set\s'
    OR pg_catalog.jsonb_extract_path_text(pg_catalog.to_jsonb(p), 'prosqlbody')
        OPERATOR(pg_catalog.~) ':funcid 2078 ')
UNION ALL
-- What runs by itself with writes, of whatever table: cascades, views and partitions reach others.
SELECT 'trigger', pg_catalog.concat(pg_catalog.quote_ident(p.proname), ' ', p.prosrc)
FROM pg_catalog.pg_proc p
WHERE p.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid AND EXISTS (
    SELECT FROM pg_catalog.pg_trigger t
    WHERE t.tgfoid OPERATOR(pg_catalog.=) p.oid
        AND t.tgenabled OPERATOR(pg_catalog.<>) 'D'::pg_catalog."char")
