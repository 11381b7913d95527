        ]::pg_catalog.text[]))
), user_type AS (
    -- An array stands for its elements, a row for its relation.
    SELECT t.oid, CASE WHEN e.typrelid OPERATOR(pg_catalog.<>) 0::pg_catalog.oid OR e.oid IS NULL AND t.typrelid OPERATOR(pg_catalog.<>) 0::pg_catalog.oid THEN 'r' ELSE 't' END AS letter,
           COALESCE(e.typname, t.typname) AS name
    FROM pg_catalog.pg_type t
        LEFT JOIN pg_catalog.pg_type e ON e.oid OPERATOR(pg_catalog.=) t.typelem AND t.typlen OPERATOR(pg_catalog.=) (-1)::pg_catalog.int2
    WHERE t.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
), rule AS (
    SELECT r.oid, r.ev_action, r.ev_qual, c.relname AS name,
           r.ev_type OPERATOR(pg_catalog.=) '1'::pg_catalog."char" AND c.relkind OPERATOR(pg_catalog.<>) 'm'::pg_catalog."char" AS reads
    FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) r.ev_class
    WHERE r.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
), part AS (
    -- Who runs it: the class and id of a part, the letter and name of its whole.
    SELECT 'pg_catalog.pg_rewrite'::pg_catalog.regclass::pg_catalog.oid AS classid, oid, CASE WHEN reads THEN 'r' ELSE 'w' END AS letter, name
    FROM rule
    UNION ALL
    SELECT 'pg_catalog.pg_trigger'::pg_catalog.regclass::pg_catalog.oid, g.oid, 'w', c.relname
    FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) g.tgrelid
    -- Internal ones, too: before PostgreSQL 15 the clones on partitions are.
    WHERE g.tgenabled OPERATOR(pg_catalog.<>) 'D'::pg_catalog."char"
    UNION ALL
    SELECT 'pg_catalog.pg_attrdef'::pg_catalog.regclass::pg_catalog.oid, d.oid,
           CASE WHEN a.attgenerated OPERATOR(pg_catalog.=) ''::pg_catalog."char" THEN 'w' ELSE 'r' END, c.relname
    FROM pg_catalog.pg_attrdef d JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) d.adrelid
        JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) d.adrelid AND a.attnum OPERATOR(pg_catalog.=) d.adnum
    UNION ALL
    SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass::pg_catalog.oid, k.oid, 'r', c.relname
    FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) k.conrelid
    UNION ALL
    SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass::pg_catalog.oid, k.oid, 't', t.typname
    FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) k.contypid
    UNION ALL
    SELECT 'pg_catalog.pg_policy'::pg_catalog.regclass::pg_catalog.oid, p.oid, 'r', c.relname
    FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) p.polrelid
    UNION ALL
    SELECT 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass::pg_catalog.oid, s.oid, 'r', c.relname
    FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) s.stxrelid
    UNION ALL
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid, c.oid, 'r', COALESCE(o.relname, c.relname)
    FROM pg_catalog.pg_class c
        LEFT JOIN pg_catalog.pg_index i ON i.indexrelid OPERATOR(pg_catalog.=) c.oid
        LEFT JOIN pg_catalog.pg_class o ON o.oid OPERATOR(pg_catalog.=) i.indrelid
    WHERE c.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid AND NOT c.relkind OPERATOR(pg_catalog.=) 't'::pg_catalog."char"
    UNION ALL
    SELECT 'pg_catalog.pg_type'::pg_catalog.regclass::pg_catalog.oid, t.oid, t.letter, t.name FROM user_type t
    UNION ALL
    SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass::pg_catalog.oid, p.oid, 'f', p.proname FROM pg_catalog.pg_proc p
    WHERE p.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
    UNION ALL
    SELECT 'pg_catalog.pg_operator'::pg_catalog.regclass::pg_catalog.oid, o.oid, 'o', o.oprname FROM pg_catalog.pg_operator o
    WHERE o.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
    UNION ALL
    SELECT 'pg_catalog.pg_opclass'::pg_catalog.regclass::pg_catalog.oid, o.oid, 'c', o.opcname FROM pg_catalog.pg_opclass o
    WHERE o.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
), edge AS (
    SELECT p.letter AS by_letter, p.name AS by_name, t.letter, t.name
    FROM pg_catalog.pg_depend d
        JOIN part p ON p.classid OPERATOR(pg_catalog.=) d.classid AND p.oid OPERATOR(pg_catalog.=) d.objid
        JOIN part t ON t.classid OPERATOR(pg_catalog.=) d.refclassid AND t.oid OPERATOR(pg_catalog.=) d.refobjid
    WHERE d.refobjid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
        AND d.refclassid OPERATOR(pg_catalog.=) ANY (ARRAY['pg_catalog.pg_proc'::pg_catalog.regclass::pg_catalog.oid,
            'pg_catalog.pg_operator'::pg_catalog.regclass::pg_catalog.oid, 'pg_catalog.pg_type'::pg_catalog.regclass::pg_catalog.oid,
            'pg_catalog.pg_opclass'::pg_catalog.regclass::pg_catalog.oid]::pg_catalog.oid[])
    UNION
    SELECT 't', a.typname, t.letter, t.name
    FROM user_type t JOIN pg_catalog.pg_type a ON a.oid OPERATOR(pg_catalog.=) t.oid
    WHERE t.letter OPERATOR(pg_catalog.=) 't' AND a.typname OPERATOR(pg_catalog.<>) t.name
    UNION
    -- What reads relations: views, policies, functions, heirs of their parents. What a rule or function writes is not told
    -- from what it reads.
    SELECT p.letter, p.name, CASE WHEN p.letter OPERATOR(pg_catalog.=) 'f' THEN 'w' ELSE 'r' END, c.relname
    FROM pg_catalog.pg_depend d
        JOIN part p ON p.classid OPERATOR(pg_catalog.=) d.classid AND p.oid OPERATOR(pg_catalog.=) d.objid
        JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) d.refobjid
    WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid AND d.refobjid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
        AND NOT c.relkind OPERATOR(pg_catalog.=) 'S'::pg_catalog."char"
        AND d.classid OPERATOR(pg_catalog.=) ANY (ARRAY['pg_catalog.pg_rewrite'::pg_catalog.regclass::pg_catalog.oid,
            'pg_catalog.pg_policy'::pg_catalog.regclass::pg_catalog.oid, 'pg_catalog.pg_proc'::pg_catalog.regclass::pg_catalog.oid,
            'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid]::pg_catalog.oid[])
    UNION
    SELECT 'w', r.name, 'w', c.relname
    FROM pg_catalog.pg_depend d
        JOIN rule r ON r.oid OPERATOR(pg_catalog.=) d.objid
        JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) d.refobjid
    WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass::pg_catalog.oid
        AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid AND d.refobjid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
    UNION
    -- A cast comes with its types, between built-in ones with everything.
    SELECT COALESCE(t.letter, 'o'), COALESCE(t.name, '='), 'f', p.proname
    FROM pg_catalog.pg_cast k
        JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) k.castfunc
        LEFT JOIN user_type t ON t.oid OPERATOR(pg_catalog.=) k.castsource OR t.oid OPERATOR(pg_catalog.=) k.casttarget
    WHERE k.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
    UNION
    -- So do operators, and the functions of operator classes.
    SELECT t.letter, t.name, 'o', o.oprname
    FROM pg_catalog.pg_operator o JOIN user_type t ON t.oid OPERATOR(pg_catalog.=) o.oprleft OR t.oid OPERATOR(pg_catalog.=) o.oprright
    WHERE o.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
    UNION
    SELECT 'c', c.opcname, 'f', p.proname
    FROM pg_catalog.pg_amproc a
        JOIN pg_catalog.pg_opclass c ON c.opcfamily OPERATOR(pg_catalog.=) a.amprocfamily
        JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) a.amproc::pg_catalog.oid
    WHERE a.amproc::pg_catalog.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
    UNION
    SELECT 'c', c.opcname, 'o', o.oprname
    FROM pg_catalog.pg_amop a
        JOIN pg_catalog.pg_opclass c ON c.opcfamily OPERATOR(pg_catalog.=) a.amopfamily
        JOIN pg_catalog.pg_operator o ON o.oid OPERATOR(pg_catalog.=) a.amopopr
    WHERE o.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
    UNION
    SELECT COALESCE(t.letter, 'o'), COALESCE(t.name, '='), 'c', c.opcname
    FROM pg_catalog.pg_opclass c LEFT JOIN user_type t ON t.oid OPERATOR(pg_catalog.=) c.opcintype
    WHERE c.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid AND (t.oid IS NOT NULL OR c.opcdefault)
), tree AS (
    SELECT CASE WHEN reads THEN 'r' ELSE 'w' END AS letter, name, pg_catalog.concat(ev_action, ev_qual) AS tree FROM rule
    UNION ALL
    SELECT CASE WHEN a.attgenerated OPERATOR(pg_catalog.=) ''::pg_catalog."char" THEN 'w' ELSE 'r' END, c.relname, d.adbin::pg_catalog.text
    FROM pg_catalog.pg_attrdef d JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) d.adrelid
        JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) d.adrelid AND a.attnum OPERATOR(pg_catalog.=) d.adnum
    UNION ALL
    SELECT 'r', c.relname, k.conbin::pg_catalog.text
    FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) k.conrelid
    WHERE k.conbin IS NOT NULL AND k.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
    UNION ALL
    SELECT 't', t.typname, k.conbin::pg_catalog.text
    FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) k.contypid
    WHERE k.conbin IS NOT NULL AND k.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
    UNION ALL
    SELECT 't', t.typname, t.typdefaultbin::pg_catalog.text FROM pg_catalog.pg_type t WHERE t.typdefaultbin IS NOT NULL
    UNION ALL
    SELECT 'r', c.relname, pg_catalog.concat(p.polqual, p.polwithcheck)
    FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) p.polrelid
    UNION ALL
    SELECT 'w', c.relname, g.tgqual::pg_catalog.text
    FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) g.tgrelid
    WHERE g.tgqual IS NOT NULL
    UNION ALL
    SELECT 'r', c.relname, pg_catalog.concat(i.indexprs, i.indpred)
    FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indrelid
    WHERE i.indexprs IS NOT NULL OR i.indpred IS NOT NULL
    UNION ALL
    SELECT 'r', c.relname, p.partexprs::pg_catalog.text
    FROM pg_catalog.pg_partitioned_table p JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) p.partrelid
    WHERE p.partexprs IS NOT NULL
    UNION ALL
    SELECT 'r', c.relname, pg_catalog.jsonb_extract_path_text(pg_catalog.to_jsonb(s), 'stxexprs')
    FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) s.stxrelid
    UNION ALL
    SELECT 'f', p.proname, pg_catalog.concat(p.proargdefaults,
        CASE WHEN p.prolang OPERATOR(pg_catalog.=) 14::pg_catalog.oid
            THEN pg_catalog.jsonb_extract_path_text(pg_catalog.to_jsonb(p), 'prosqlbody') END)
    FROM pg_catalog.pg_proc p WHERE p.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
)
SELECT pg_catalog.concat('reach ', by_letter, letter),
       pg_catalog.concat(pg_catalog.quote_ident(by_name::pg_catalog.text), ' ', pg_catalog.quote_ident(name::pg_catalog.text))
FROM edge
WHERE NOT (by_letter OPERATOR(pg_catalog.=) letter AND by_name OPERATOR(pg_catalog.=) name)
UNION ALL
SELECT DISTINCT 'heir', pg_catalog.concat(pg_catalog.quote_ident(p.relname::pg_catalog.text), ' ', pg_catalog.quote_ident(c.relname::pg_catalog.text))
FROM pg_catalog.pg_inherits i
    JOIN pg_catalog.pg_class p ON p.oid OPERATOR(pg_catalog.=) i.inhparent
    JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.inhrelid
WHERE NOT c.relkind OPERATOR(pg_catalog.=) ANY ('{i,I}'::pg_catalog."char"[])
UNION ALL
SELECT DISTINCT pg_catalog.concat('refers ', k.confdeltype, k.confupdtype),
       pg_catalog.concat(pg_catalog.quote_ident(c.relname::pg_catalog.text), ' ', pg_catalog.quote_ident(p.relname::pg_catalog.text))
FROM pg_catalog.pg_constraint k
    JOIN pg_catalog.pg_class p ON p.oid OPERATOR(pg_catalog.=) k.confrelid
    JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) k.conrelid
WHERE k.contype OPERATOR(pg_catalog.=) 'f'::pg_catalog."char"
UNION ALL
SELECT DISTINCT pg_catalog.concat('doubt ', t.letter), t.name::pg_catalog.text
FROM tree t CROSS JOIN pg_catalog.regexp_matches(t.tree, ':(funcid|opfuncid|aggfnoid|winfnoid) (\d+)', 'g') AS m
    JOIN risky r ON r.oid OPERATOR(pg_catalog.=) m[2]::pg_catalog.oid
UNION ALL
-- Built-in functions that something of users' calls without an expression.
SELECT pg_catalog.concat('doubt ', u.letter), u.name::pg_catalog.text
FROM (
    SELECT 'o' AS letter, o.oprname AS name, v.oid AS called
    FROM pg_catalog.pg_operator o
        CROSS JOIN LATERAL (VALUES (o.oprcode::pg_catalog.oid), (o.oprrest::pg_catalog.oid), (o.oprjoin::pg_catalog.oid)) AS v (oid)
    WHERE o.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
    UNION ALL
    SELECT 'f', p.proname, v.oid
    FROM pg_catalog.pg_aggregate a
        JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) a.aggfnoid::pg_catalog.oid
        CROSS JOIN LATERAL (VALUES (a.aggtransfn::pg_catalog.oid), (a.aggfinalfn::pg_catalog.oid), (a.aggcombinefn::pg_catalog.oid), (a.aggserialfn::pg_catalog.oid),
            (a.aggdeserialfn::pg_catalog.oid), (a.aggmtransfn::pg_catalog.oid), (a.aggminvtransfn::pg_catalog.oid), (a.aggmfinalfn::pg_catalog.oid)) AS v (oid)
    WHERE p.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
    UNION ALL
    SELECT COALESCE(t.letter, 'o'), COALESCE(t.name, '='), k.castfunc
    FROM pg_catalog.pg_cast k
        LEFT JOIN user_type t ON t.oid OPERATOR(pg_catalog.=) k.castsource OR t.oid OPERATOR(pg_catalog.=) k.casttarget
    WHERE k.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
    UNION ALL
    SELECT 'w', c.relname, g.tgfoid
    FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) g.tgrelid
) u JOIN risky r ON r.oid OPERATOR(pg_catalog.=) u.called
UNION ALL
-- What reads the texts that sessions have prepared.
SELECT DISTINCT pg_catalog.concat('doubt ', t.letter), t.name::pg_catalog.text
FROM tree t
WHERE t.tree OPERATOR(pg_catalog.~) pg_catalog.concat(':relid ', 'pg_catalog.pg_prepared_statements'::pg_catalog.regclass::pg_catalog.oid, '[^0-9]'))
