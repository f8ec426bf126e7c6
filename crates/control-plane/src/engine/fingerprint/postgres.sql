-- All objects of a database, one a row. {ours} are tables of ours, which are left out with what hangs on them, as is what an
-- extension brought.
WITH extended AS (SELECT classid, objid FROM pg_depend WHERE deptype = 'e'),
spaces AS (
  SELECT oid, nspname FROM pg_namespace
  WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND nspname !~ '^pg_(toast_)?temp_'
),
relations AS (
  SELECT c.*, n.nspname, format('%I.%I', n.nspname, c.relname) AS name FROM pg_class c JOIN spaces n ON n.oid = c.relnamespace
  WHERE c.relname NOT IN ({ours})
    AND NOT EXISTS (SELECT FROM extended e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid)
),
routines AS (
  SELECT p.*, format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)) AS name
  FROM pg_proc p JOIN spaces n ON n.oid = p.pronamespace
  WHERE NOT EXISTS (SELECT FROM extended e WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid)
),
types AS (
  SELECT t.*, format('%I.%I', n.nspname, t.typname) AS name FROM pg_type t JOIN spaces n ON n.oid = t.typnamespace
  WHERE NOT EXISTS (SELECT FROM extended e WHERE e.classid = 'pg_type'::regclass AND e.objid = t.oid)
)
SELECT format('schema %I', nspname) FROM spaces WHERE nspname <> 'public'
UNION ALL
SELECT format('extension %I', extname) FROM pg_extension WHERE extname <> 'plpgsql'
UNION ALL
SELECT concat_ws(' ', CASE relkind WHEN 'f' THEN 'foreign table' ELSE 'table' END, name,
    CASE relpersistence WHEN 'u' THEN 'UNLOGGED' END,
    CASE relkind WHEN 'p' THEN 'PARTITION BY ' || pg_get_partkeydef(oid) END,
    CASE WHEN relispartition THEN (
      SELECT format('PARTITION OF %s %s', i.inhparent::regclass, pg_get_expr(relpartbound, oid)) FROM pg_inherits i
      WHERE i.inhrelid = relations.oid) END,
    CASE WHEN relrowsecurity THEN 'ROW SECURITY' END, array_to_string(reloptions, ' '))
FROM relations WHERE relkind IN ('r', 'p', 'f')
UNION ALL
SELECT concat_ws(' ', 'column', format('%s.%I', r.name, a.attname), format_type(a.atttypid, a.atttypmod),
    CASE WHEN a.attcollation <> t.typcollation THEN 'COLLATE ' || a.attcollation::regcollation END,
    CASE WHEN a.attnotnull THEN 'NOT NULL' END,
    CASE a.attidentity WHEN 'a' THEN 'IDENTITY ALWAYS' WHEN 'd' THEN 'IDENTITY BY DEFAULT' END,
    CASE WHEN d.adbin IS NOT NULL THEN
      CASE a.attgenerated WHEN '' THEN 'DEFAULT ' ELSE 'GENERATED ' END || pg_get_expr(d.adbin, d.adrelid) END)
FROM relations r JOIN pg_attribute a ON a.attrelid = r.oid JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE r.relkind IN ('r', 'p', 'f', 'c') AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL
-- Since Postgres 18 what is NOT NULL is a constraint as well; the column's line says so on each.
SELECT format('constraint %s.%I %s', r.name, o.conname, pg_get_constraintdef(o.oid))
FROM pg_constraint o JOIN relations r ON r.oid = o.conrelid WHERE o.contype NOT IN ('n', 't')
UNION ALL
SELECT concat_ws(' ', 'index', r.name, pg_get_indexdef(i.indexrelid),
    CASE WHEN NOT i.indisvalid THEN 'INVALID' END, CASE WHEN NOT i.indisready THEN 'NOT READY' END)
FROM pg_index i JOIN relations r ON r.oid = i.indexrelid JOIN relations t ON t.oid = i.indrelid
UNION ALL
SELECT format('sequence %s %s START %s INCREMENT %s FROM %s TO %s%s', r.name, format_type(s.seqtypid, NULL), s.seqstart,
    s.seqincrement, s.seqmin, s.seqmax, CASE WHEN s.seqcycle THEN ' CYCLE' ELSE '' END)
FROM pg_sequence s JOIN relations r ON r.oid = s.seqrelid
UNION ALL
SELECT concat_ws(' ', CASE relkind WHEN 'v' THEN 'view' ELSE 'materialized view' END, name, array_to_string(reloptions, ' '),
    'AS', pg_get_viewdef(oid))
FROM relations WHERE relkind IN ('v', 'm')
UNION ALL
SELECT format('function %s %s', name, pg_get_functiondef(oid)) FROM routines WHERE prokind IN ('f', 'p', 'w')
UNION ALL
SELECT format('aggregate %s', name) FROM routines WHERE prokind = 'a'
UNION ALL
SELECT concat_ws(' ', 'trigger', format('%s.%I', r.name, t.tgname), pg_get_triggerdef(t.oid),
    CASE t.tgenabled WHEN 'D' THEN 'DISABLED' WHEN 'R' THEN 'ON REPLICAS' WHEN 'A' THEN 'ALWAYS' END)
FROM pg_trigger t JOIN relations r ON r.oid = t.tgrelid WHERE NOT t.tgisinternal
UNION ALL
SELECT concat_ws(' ', 'policy', format('%s.%I', r.name, p.polname), CASE p.polcmd WHEN '*' THEN 'ALL' ELSE p.polcmd::text END,
    CASE WHEN NOT p.polpermissive THEN 'RESTRICTIVE' END, 'USING ' || pg_get_expr(p.polqual, p.polrelid),
    'WITH CHECK ' || pg_get_expr(p.polwithcheck, p.polrelid))
FROM pg_policy p JOIN relations r ON r.oid = p.polrelid
UNION ALL
SELECT format('type %s ENUM %s', t.name, (
    SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid))
FROM types t WHERE t.typtype = 'e'
UNION ALL
SELECT concat_ws(' ', 'type', t.name, 'DOMAIN', format_type(t.typbasetype, t.typtypmod), CASE WHEN t.typnotnull THEN 'NOT NULL' END,
    'DEFAULT ' || t.typdefault, (SELECT string_agg(pg_get_constraintdef(o.oid), ' ' ORDER BY o.conname) FROM pg_constraint o
      WHERE o.contypid = t.oid AND o.contype <> 'n'))
FROM types t WHERE t.typtype = 'd'
