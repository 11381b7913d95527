        ]::pg_catalog.text[]) OR p.provolatile OPERATOR(pg_catalog.=) 'v'::pg_catalog."char" AND NOT p.proname OPERATOR(pg_catalog.=) ANY (ARRAY[
