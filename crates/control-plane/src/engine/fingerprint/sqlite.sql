-- All objects of a database, one a row. {ours} are tables of ours, which are left out with what hangs on them.
WITH objects AS (SELECT * FROM sqlite_schema WHERE tbl_name NOT IN ({ours}) AND name NOT LIKE 'sqlite\_%' ESCAPE '\'),
tables AS (SELECT name, sql FROM objects WHERE type = 'table')
SELECT 'table ' || t.name || iif(l.wr, ' WITHOUT ROWID', '') || iif(l.strict, ' STRICT', '')
FROM tables t JOIN pragma_table_list(t.name) l WHERE l.schema = 'main'
UNION ALL
SELECT 'column ' || t.name || '.' || c.name || ' ' || c.type || iif(c."notnull", ' NOT NULL', '')
  || coalesce(' DEFAULT ' || c.dflt_value, '') || iif(c.pk > 0, ' PRIMARY KEY ' || c.pk, '')
  || CASE c.hidden WHEN 2 THEN ' VIRTUAL' WHEN 3 THEN ' STORED' ELSE '' END
FROM tables t JOIN pragma_table_xinfo(t.name) c
UNION ALL
SELECT 'constraint ' || t.name || ' FOREIGN KEY (' || group_concat(f."from", ', ') || ') REFERENCES ' || f."table" || ' ('
  || group_concat(coalesce(f."to", 'its key'), ', ') || ') ON UPDATE ' || f.on_update || ' ON DELETE ' || f.on_delete
FROM tables t JOIN pragma_foreign_key_list(t.name) f GROUP BY t.name, f.id
UNION ALL
-- What a column's or table's UNIQUE or PRIMARY KEY made.
SELECT 'constraint ' || t.name || iif(l.origin = 'pk', ' PRIMARY KEY (', ' UNIQUE (')
  || (SELECT group_concat(i.name, ', ') FROM pragma_index_info(l.name) i) || ')'
FROM tables t JOIN pragma_index_list(t.name) l WHERE l.origin <> 'c'
UNION ALL
-- What has no other place than the table's own text.
SELECT 'definition ' || name || ' ' || sql FROM tables
WHERE sql LIKE '%check%' OR sql LIKE '%generated%' OR sql LIKE '%collate%' OR sql LIKE '%autoincrement%'
UNION ALL
SELECT type || ' ' || name || ' ' || sql FROM objects WHERE type IN ('index', 'view', 'trigger') AND sql IS NOT NULL
