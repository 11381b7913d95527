-- The definition of each object: kind, its table (or 0), key, SQL, SQL for a new one that is not compared, SQL that takes it
-- away, and the schema and name that rules know it by. Without SQL it is one that this cannot make.
, named AS (
    SELECT o.classid, o.objid, i.type, i.identity FROM own AS o
    CROSS JOIN LATERAL pg_catalog.pg_identify_object(o.classid, o.objid, 0) AS i
), options AS (
    SELECT s.seqrelid, pg_catalog.format(
        'INCREMENT BY %s MINVALUE %s MAXVALUE %s START WITH %s CACHE %s%s',
        s.seqincrement, s.seqmin, s.seqmax, s.seqstart, s.seqcache, CASE WHEN s.seqcycle THEN ' CYCLE' ELSE '' END) AS text,
        pg_catalog.format_type(s.seqtypid, NULL) AS type
    FROM pg_catalog.pg_sequence AS s
), collations AS (
    SELECT c.oid, ' COLLATE ' || pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.collname) AS text
    FROM pg_catalog.pg_collation AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.collnamespace
), columns AS (
    SELECT a.attrelid, pg_catalog.string_agg(
        pg_catalog.quote_ident(a.attname) || ' ' || pg_catalog.format_type(a.atttypid, a.atttypmod)
        || CASE WHEN a.attcollation <> t.typcollation THEN COALESCE(l.text, '') ELSE '' END
        || CASE a.attgenerated
            WHEN 's' THEN ' GENERATED ALWAYS AS (' || pg_catalog.pg_get_expr(e.adbin, e.adrelid) || ') STORED'
            WHEN 'v' THEN ' GENERATED ALWAYS AS (' || pg_catalog.pg_get_expr(e.adbin, e.adrelid) || ') VIRTUAL'
            ELSE '' END
        || CASE WHEN a.attidentity IN ('a', 'd') THEN pg_catalog.format(' GENERATED %s AS IDENTITY (SEQUENCE NAME %s %s)',
            CASE a.attidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END, q.objid::pg_catalog.regclass, s.text)
            ELSE '' END
        || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END,
        ', ' ORDER BY a.attnum) AS text
    FROM own AS o
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = o.objid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
    LEFT JOIN collations AS l ON l.oid = a.attcollation
    LEFT JOIN pg_catalog.pg_attrdef AS e ON e.adrelid = a.attrelid AND e.adnum = a.attnum
    LEFT JOIN pg_catalog.pg_depend AS q ON a.attidentity <> '' AND q.deptype = 'i' AND q.refobjid = a.attrelid
        AND q.refobjsubid = a.attnum AND q.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
        AND q.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
    LEFT JOIN options AS s ON s.seqrelid = q.objid
    WHERE o.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
    GROUP BY a.attrelid
), settings AS (
    -- Of columns: how their values are stored, and what is known of them. A partition begins with its parent's.
    SELECT a.attrelid, a.attnum, a.attname AS column, pg_catalog.unnest(ARRAY[
        CASE WHEN a.attstorage <> COALESCE(p.attstorage, t.typstorage) OR a.attstorage <> t.typstorage
            THEN 'SET STORAGE ' || CASE a.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN'
                ELSE 'EXTENDED' END END,
        -- From 14 on.
        'SET COMPRESSION ' || CASE pg_catalog.to_jsonb(a) OPERATOR(pg_catalog.->>) 'attcompression'
            WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' END,
        CASE WHEN COALESCE(a.attstattarget, -1) >= 0 THEN 'SET STATISTICS ' || a.attstattarget END,
        (SELECT 'SET (' || pg_catalog.string_agg(pg_catalog.format('%I=%L', x.option_name, x.option_value), ', ') || ')'
            FROM pg_catalog.pg_options_to_table(a.attoptions) AS x)]) AS setting
    FROM own AS o
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = o.objid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
    JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p')
    LEFT JOIN pg_catalog.pg_inherits AS i ON i.inhrelid = c.oid AND c.relispartition
    LEFT JOIN pg_catalog.pg_attribute AS p ON p.attrelid = i.inhparent AND p.attname = a.attname AND NOT p.attisdropped
    WHERE o.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
), made AS (
    -- Schemas and extensions.
    SELECT n.classid, n.objid, 'schema' AS kind, 0::pg_catalog.oid AS tab,
        'CREATE SCHEMA ' || n.identity AS sql, 'DROP SCHEMA ' || n.identity AS undo,
        s.nspname AS schema, s.nspname AS name, s.nspowner AS owner, s.nspacl AS acl, 'SCHEMA' AS word
    FROM named AS n JOIN pg_catalog.pg_namespace AS s ON s.oid = n.objid
    WHERE n.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass
    UNION ALL
    SELECT n.classid, n.objid, 'extension', 0, 'CREATE EXTENSION ' || n.identity
        || CASE WHEN x.extrelocatable THEN ' SCHEMA ' || pg_catalog.quote_ident(s.nspname) ELSE '' END,
        'DROP EXTENSION ' || n.identity, s.nspname, x.extname, NULL, NULL, NULL
    FROM named AS n JOIN pg_catalog.pg_extension AS x ON x.oid = n.objid
    JOIN pg_catalog.pg_namespace AS s ON s.oid = x.extnamespace
    WHERE n.classid = 'pg_catalog.pg_extension'::pg_catalog.regclass
    UNION ALL
    -- Types.
    SELECT n.classid, n.objid, 'type', 0, CASE t.typtype
        WHEN 'e' THEN pg_catalog.format('CREATE TYPE %s AS ENUM (%s)', n.identity, (
            SELECT pg_catalog.string_agg(pg_catalog.quote_literal(l.enumlabel), ', ' ORDER BY l.enumsortorder)
            FROM pg_catalog.pg_enum AS l WHERE l.enumtypid = t.oid))
        WHEN 'd' THEN 'CREATE DOMAIN ' || n.identity || ' AS ' || pg_catalog.format_type(t.typbasetype, t.typtypmod)
            || CASE WHEN t.typcollation <> b.typcollation THEN COALESCE(l.text, '') ELSE '' END
            || COALESCE(' DEFAULT ' || pg_catalog.pg_get_expr(t.typdefaultbin, 0), '')
            || CASE WHEN t.typnotnull THEN ' NOT NULL' ELSE '' END || COALESCE((
                SELECT pg_catalog.string_agg(' CONSTRAINT ' || pg_catalog.quote_ident(k.conname) || ' '
                    || pg_catalog.pg_get_constraintdef(k.oid), '' ORDER BY k.conname)
                FROM pg_catalog.pg_constraint AS k WHERE k.contypid = t.oid AND k.contype = 'c'), '')
        WHEN 'c' THEN pg_catalog.format('CREATE TYPE %s AS (%s)', n.identity, c.text) END,
        'DROP TYPE ' || n.identity, s.nspname, t.typname, t.typowner, t.typacl, 'TYPE'
    FROM named AS n JOIN pg_catalog.pg_type AS t ON t.oid = n.objid
    JOIN pg_catalog.pg_namespace AS s ON s.oid = t.typnamespace
    LEFT JOIN pg_catalog.pg_type AS b ON b.oid = t.typbasetype
    LEFT JOIN collations AS l ON l.oid = t.typcollation
    LEFT JOIN pg_catalog.pg_class AS r ON r.oid = t.typrelid
    LEFT JOIN columns AS c ON c.attrelid = t.typrelid
    WHERE n.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND (t.typtype <> 'c' OR r.relkind = 'c')
    AND NOT (t.typelem <> 0 AND t.typlen = -1 AND t.typcategory = 'A') AND t.typtype <> 'm'
    UNION ALL
    -- Functions.
    SELECT n.classid, n.objid, 'function', 0, CASE WHEN p.prokind <> 'a' AND l.lanname NOT IN ('c', 'internal')
        THEN pg_catalog.regexp_replace(pg_catalog.pg_get_functiondef(p.oid), '^CREATE OR REPLACE', 'CREATE') END,
        'DROP ROUTINE ' || n.identity, s.nspname, p.proname, p.proowner, p.proacl, 'ROUTINE'
    FROM named AS n JOIN (SELECT * FROM pg_catalog.pg_proc WHERE prokind <> 'a') AS p ON p.oid = n.objid
    JOIN pg_catalog.pg_namespace AS s ON s.oid = p.pronamespace JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
    WHERE n.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
    UNION ALL
    SELECT n.classid, n.objid, 'function', 0, NULL, NULL, s.nspname, p.proname, NULL, NULL, NULL
    FROM named AS n JOIN pg_catalog.pg_proc AS p ON p.oid = n.objid AND p.prokind = 'a'
    JOIN pg_catalog.pg_namespace AS s ON s.oid = p.pronamespace
    WHERE n.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
    UNION ALL
    -- Sequences but those of identities, which come with their columns.
    SELECT n.classid, n.objid, 'sequence', 0, pg_catalog.format('CREATE SEQUENCE %s AS %s %s', n.identity, q.type, q.text),
        'DROP SEQUENCE ' || n.identity, s.nspname, c.relname, c.relowner, c.relacl, 'SEQUENCE'
    FROM named AS n JOIN pg_catalog.pg_class AS c ON c.oid = n.objid AND c.relkind = 'S'
    JOIN pg_catalog.pg_namespace AS s ON s.oid = c.relnamespace JOIN options AS q ON q.seqrelid = c.oid
    WHERE n.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_depend AS d WHERE d.classid = n.classid AND d.objid = n.objid AND d.deptype = 'i'
        AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass)
    UNION ALL
    -- Tables, partitions, views; what else there is of this kind cannot be made.
    SELECT n.classid, n.objid, CASE WHEN c.relkind = 'v' THEN 'view' WHEN c.relispartition THEN 'partition' ELSE 'table' END, 0,
        CASE WHEN c.relkind = 'v' THEN 'CREATE VIEW ' || n.identity || COALESCE(w.text, '') || ' AS '
            || pg_catalog.rtrim(pg_catalog.pg_get_viewdef(c.oid), ';')
        WHEN c.relkind NOT IN ('r', 'p') OR c.reloftype <> 0 THEN NULL
        WHEN i.inhparent IS NOT NULL AND NOT c.relispartition THEN NULL
        ELSE CASE WHEN c.relpersistence = 'u' THEN 'CREATE UNLOGGED TABLE ' ELSE 'CREATE TABLE ' END || n.identity
            || CASE WHEN c.relispartition THEN pg_catalog.format(' PARTITION OF %s %s', i.inhparent::pg_catalog.regclass,
                pg_catalog.pg_get_expr(c.relpartbound, c.oid)) ELSE ' (' || COALESCE(k.text, '') || ')' END
            || CASE WHEN c.relkind = 'p' THEN ' PARTITION BY ' || pg_catalog.pg_get_partkeydef(c.oid) ELSE '' END
            || COALESCE(w.text, '')
            || CASE WHEN c.relrowsecurity THEN pg_catalog.format('; ALTER TABLE %s ENABLE ROW LEVEL SECURITY', n.identity)
                ELSE '' END
            || CASE WHEN c.relforcerowsecurity THEN pg_catalog.format('; ALTER TABLE %s FORCE ROW LEVEL SECURITY', n.identity)
                ELSE '' END END,
        CASE c.relkind WHEN 'v' THEN 'DROP VIEW ' ELSE 'DROP TABLE ' END || n.identity, s.nspname, c.relname,
        c.relowner, c.relacl, CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END
    FROM named AS n JOIN pg_catalog.pg_class AS c ON c.oid = n.objid AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    JOIN pg_catalog.pg_namespace AS s ON s.oid = c.relnamespace
    LEFT JOIN columns AS k ON k.attrelid = c.oid
    LEFT JOIN pg_catalog.pg_inherits AS i ON i.inhrelid = c.oid AND i.inhseqno = 1
    CROSS JOIN LATERAL (SELECT ' WITH (' || pg_catalog.string_agg(pg_catalog.quote_ident(x.option_name) || '='
        || pg_catalog.quote_literal(x.option_value), ', ') || ')' FROM pg_catalog.pg_options_to_table(c.reloptions) AS x
    ) AS w (text)
    WHERE n.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
    UNION ALL
    -- What belongs to a table: defaults, constraints, indexes, triggers, policies. What a partition has from its parent comes with it.
    SELECT n.classid, n.objid, 'default', e.adrelid, pg_catalog.format('ALTER TABLE ONLY %s ALTER COLUMN %I SET DEFAULT %s',
        e.adrelid::pg_catalog.regclass, a.attname, pg_catalog.pg_get_expr(e.adbin, e.adrelid)),
        pg_catalog.format('ALTER TABLE ONLY %s ALTER COLUMN %I DROP DEFAULT', e.adrelid::pg_catalog.regclass, a.attname),
        NULL, NULL, NULL, NULL, NULL
    FROM named AS n JOIN pg_catalog.pg_attrdef AS e ON e.oid = n.objid
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = e.adrelid AND a.attnum = e.adnum AND a.attgenerated = ''
    WHERE n.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
    UNION ALL
    SELECT n.classid, n.objid, CASE o.contype WHEN 'f' THEN 'reference' ELSE 'constraint' END, o.conrelid,
        pg_catalog.format('ALTER TABLE %s ADD CONSTRAINT %I %s',
            o.conrelid::pg_catalog.regclass, o.conname, pg_catalog.pg_get_constraintdef(o.oid)),
        pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS %I', o.conrelid::pg_catalog.regclass, o.conname),
        NULL, NULL, NULL, NULL, NULL
    FROM named AS n JOIN pg_catalog.pg_constraint AS o ON o.oid = n.objid
    WHERE n.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND o.conrelid <> 0
    AND o.contype IN ('c', 'p', 'u', 'x', 'f') AND o.conparentid = 0 AND (o.conislocal OR o.contype <> 'c')
    UNION ALL
    SELECT n.classid, n.objid, 'index', x.indrelid,
        pg_catalog.regexp_replace(pg_catalog.pg_get_indexdef(x.indexrelid),
            '^(CREATE (UNIQUE )?INDEX ("([^"]|"")*"|[^" ]+) ON) ONLY ', '\1 '),
        'DROP INDEX ' || n.identity, NULL, NULL, NULL, NULL, NULL
    FROM named AS n JOIN pg_catalog.pg_index AS x ON x.indexrelid = n.objid AND x.indisvalid
    JOIN pg_catalog.pg_class AS c ON c.oid = x.indexrelid AND NOT c.relispartition
    JOIN pg_catalog.pg_class AS t ON t.oid = x.indrelid AND t.relkind IN ('r', 'p')
    WHERE n.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_constraint AS k WHERE k.conindid = x.indexrelid AND k.contype IN ('p', 'u', 'x'))
    UNION ALL
    SELECT n.classid, n.objid, 'trigger', t.tgrelid, pg_catalog.pg_get_triggerdef(t.oid)
        || CASE t.tgenabled WHEN 'O' THEN '' ELSE pg_catalog.format('; ALTER TABLE %s %s TRIGGER %I',
            t.tgrelid::pg_catalog.regclass, CASE t.tgenabled WHEN 'A' THEN 'ENABLE ALWAYS' WHEN 'R' THEN 'ENABLE REPLICA'
            ELSE 'DISABLE' END, t.tgname) END,
        'DROP TRIGGER ' || n.identity, NULL, t.tgname, NULL, NULL, NULL
    FROM named AS n JOIN pg_catalog.pg_trigger AS t ON t.oid = n.objid AND NOT t.tgisinternal
    WHERE n.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_depend AS d WHERE d.classid = n.classid AND d.objid = n.objid AND d.deptype IN ('P', 'S'))
    UNION ALL
    SELECT n.classid, n.objid, 'policy', p.polrelid, pg_catalog.format('CREATE POLICY %I ON %s AS %s FOR %s TO %s',
        p.polname, p.polrelid::pg_catalog.regclass, CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
        CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
        (SELECT pg_catalog.string_agg(CASE r.oid WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(
            pg_catalog.pg_get_userbyid(r.oid)) END, ', ' ORDER BY r.at)
            FROM pg_catalog.unnest(p.polroles) WITH ORDINALITY AS r (oid, at)))
        || COALESCE(' USING (' || pg_catalog.pg_get_expr(p.polqual, p.polrelid) || ')', '')
        || COALESCE(' WITH CHECK (' || pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) || ')', ''),
        'DROP POLICY ' || n.identity, NULL, p.polname, NULL, NULL, NULL
    FROM named AS n JOIN pg_catalog.pg_policy AS p ON p.oid = n.objid
    WHERE n.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass
    UNION ALL
    SELECT n.classid, n.objid, 'statistics', x.stxrelid, pg_catalog.pg_get_statisticsobjdef(x.oid),
        'DROP STATISTICS ' || n.identity, NULL, NULL, NULL, NULL, NULL
    FROM named AS n JOIN pg_catalog.pg_statistic_ext AS x ON x.oid = n.objid
    WHERE n.classid = 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass
    UNION ALL
    -- Rules that are no view's, and all other kinds; but what a server publishes is its own affair.
    SELECT n.classid, n.objid, n.type, COALESCE(w.ev_class, 0), NULL, NULL, NULL, NULL, NULL, NULL, NULL
    FROM named AS n LEFT JOIN pg_catalog.pg_rewrite AS w
        ON n.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND w.oid = n.objid
    WHERE w.rulename IS DISTINCT FROM '_RETURN' AND n.classid NOT IN (
        'pg_catalog.pg_class'::pg_catalog.regclass, 'pg_catalog.pg_type'::pg_catalog.regclass,
        'pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_namespace'::pg_catalog.regclass,
        'pg_catalog.pg_extension'::pg_catalog.regclass, 'pg_catalog.pg_attrdef'::pg_catalog.regclass,
        'pg_catalog.pg_constraint'::pg_catalog.regclass, 'pg_catalog.pg_trigger'::pg_catalog.regclass,
        'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, 'pg_catalog.pg_policy'::pg_catalog.regclass,
        'pg_catalog.pg_publication_rel'::pg_catalog.regclass)
    AND n.type NOT LIKE 'publication%'
)
SELECT m.classid, m.objid, m.kind, m.tab, n.type || ' ' || n.identity, m.sql,
    pg_catalog.concat_ws('; ',
        CASE WHEN m.owner IS NOT NULL AND u.rolname <> CURRENT_USER
            THEN pg_catalog.format('ALTER %s %s OWNER TO %I', m.word, n.identity, u.rolname) END,
        CASE WHEN m.kind = 'sequence' THEN (
            SELECT pg_catalog.format('ALTER SEQUENCE %s OWNED BY %s.%I', n.identity, d.refobjid::pg_catalog.regclass, a.attname)
            FROM pg_catalog.pg_depend AS d
            JOIN pg_catalog.pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
            WHERE d.classid = m.classid AND d.objid = m.objid AND d.deptype = 'a'
            AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass) END,
        CASE WHEN m.word IN ('ROUTINE', 'TYPE') AND m.acl IS NOT NULL
            THEN pg_catalog.format('REVOKE ALL ON %s %s FROM PUBLIC', m.word, n.identity) END,
        (SELECT pg_catalog.string_agg(pg_catalog.format('GRANT %s ON %s %s TO %s%s', g.privilege_type,
            CASE m.word WHEN 'VIEW' THEN 'TABLE' ELSE m.word END, n.identity,
            CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(g.grantee)) END,
            CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END), '; ' ORDER BY g.grantee, g.privilege_type)
        FROM pg_catalog.aclexplode(m.acl) AS g WHERE g.grantee <> m.owner),
        CASE WHEN m.word IN ('TABLE', 'VIEW') THEN (
            SELECT pg_catalog.string_agg(pg_catalog.format('GRANT %s (%I) ON TABLE %s TO %s%s', g.privilege_type, a.attname,
                n.identity, CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(
                    pg_catalog.pg_get_userbyid(g.grantee)) END, CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END),
                '; ' ORDER BY a.attnum, g.grantee, g.privilege_type)
            FROM pg_catalog.pg_attribute AS a CROSS JOIN LATERAL pg_catalog.aclexplode(a.attacl) AS g
            WHERE a.attrelid = m.objid AND a.attnum > 0 AND NOT a.attisdropped) END,
        CASE WHEN m.word = 'TABLE' THEN (
            SELECT pg_catalog.string_agg(pg_catalog.format('ALTER TABLE ONLY %s ALTER COLUMN %I %s', n.identity, s.column, s.setting),
                '; ' ORDER BY s.attnum, s.setting)
            FROM settings AS s WHERE s.attrelid = m.objid AND s.setting IS NOT NULL) END,
        CASE WHEN m.word = 'TABLE' THEN (
            SELECT pg_catalog.format('ALTER TABLE %s SET (%s)', n.identity, pg_catalog.string_agg(pg_catalog.format('toast.%I=%L',
                x.option_name, x.option_value), ', '))
            FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_class AS t ON t.oid = c.reltoastrelid
            CROSS JOIN LATERAL pg_catalog.pg_options_to_table(t.reloptions) AS x
            WHERE c.oid = m.objid HAVING pg_catalog.count(*) > 0) END,
        (SELECT pg_catalog.string_agg(pg_catalog.format('COMMENT ON %s %s IS %L',
            CASE WHEN d.objsubid <> 0 THEN 'COLUMN' WHEN m.word IS NOT NULL THEN m.word
                WHEN m.kind IN ('constraint', 'reference') THEN 'CONSTRAINT' ELSE pg_catalog.upper(m.kind) END,
            pg_catalog.rtrim(i.identity), d.description), '; ' ORDER BY d.objsubid)
        FROM pg_catalog.pg_description AS d
        CROSS JOIN LATERAL pg_catalog.pg_identify_object(d.classoid, d.objoid, d.objsubid) AS i
        WHERE d.classoid = m.classid AND d.objoid = m.objid AND m.kind NOT IN ('extension', 'default'))),
    m.undo,
    COALESCE(ps.nspname, m.schema), COALESCE(pc.relname, m.name)
FROM made AS m JOIN named AS n ON n.classid = m.classid AND n.objid = m.objid
LEFT JOIN pg_catalog.pg_roles AS u ON u.oid = m.owner
LEFT JOIN pg_catalog.pg_class AS pc ON m.kind = 'partition' AND pc.oid = pg_catalog.pg_partition_root(m.objid)
LEFT JOIN pg_catalog.pg_namespace AS ps ON ps.oid = pc.relnamespace
WHERE m.tab = 0 OR EXISTS (SELECT FROM own AS o WHERE o.objid = m.tab
    AND o.classid = 'pg_catalog.pg_class'::pg_catalog.regclass)
ORDER BY CASE m.kind WHEN 'schema' THEN 0 WHEN 'extension' THEN 1 WHEN 'type' THEN 2 WHEN 'table' THEN 3 WHEN 'partition' THEN 3 WHEN 'sequence' THEN 4
    WHEN 'function' THEN 5 WHEN 'default' THEN 6 WHEN 'constraint' THEN 7 WHEN 'index' THEN 8 WHEN 'view' THEN 9
    WHEN 'reference' THEN 10 ELSE 11 END, 5
