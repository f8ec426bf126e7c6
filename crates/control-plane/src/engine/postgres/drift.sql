-- One row of text for everything about a tenant's database that is not as it was made.
-- $1 the login role in use, $2 the other, $3 connections that the first may hold, $4 the owner, $5 the group,
-- $6 and $7 the two timeouts, $8 the tables of ours with commas between, which the group may only read.
WITH RECURSIVE
us AS (
  SELECT d.oid, d.datdba, coalesce(d.datacl, acldefault('d', d.datdba)) AS acl,
         (SELECT oid FROM pg_roles WHERE rolname = $4) AS owner, (SELECT oid FROM pg_roles WHERE rolname = $5) AS rw
  FROM pg_database d WHERE d.datname = current_database()
),
logins AS (SELECT r.*, r.rolname = $1 AS is_in_use FROM pg_roles r WHERE r.rolname IN ($1, $2)),
-- Who has what on what, and whether it was wanted. The owner of a thing has everything on it.
granted AS (
  SELECT 'the database' AS thing, a.grantee, a.privilege_type AS privilege,
         a.privilege_type = 'CONNECT' AND NOT a.is_grantable AND a.grantee IN (SELECT oid FROM logins) AS is_wanted
  FROM us, aclexplode(us.acl) a WHERE a.grantee NOT IN (us.datdba, us.owner)
  UNION ALL
  SELECT 'the schema public', a.grantee, a.privilege_type,
         a.privilege_type = 'USAGE' AND NOT a.is_grantable AND a.grantee = us.rw
  FROM us, pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
  WHERE n.nspname = 'public' AND a.grantee NOT IN (n.nspowner, us.owner)
  UNION ALL
  SELECT r.thing, a.grantee, a.privilege_type,
         a.privilege_type = ANY (r.wanted) AND NOT a.is_grantable AND a.grantee = us.rw
  FROM us, relations r, aclexplode(r.acl) a WHERE a.grantee <> r.relowner
  UNION ALL
  SELECT r.thing || '.' || t.attname, a.grantee, a.privilege_type, false
  FROM relations r JOIN pg_attribute t ON t.attrelid = r.oid AND NOT t.attisdropped, aclexplode(t.attacl) a
  WHERE t.attacl IS NOT NULL AND a.grantee <> r.relowner
  UNION ALL
  SELECT f.thing, a.grantee, a.privilege_type,
         a.privilege_type = ANY (f.wanted) AND NOT a.is_grantable AND a.grantee = us.rw
  FROM us, future f JOIN pg_default_acl d ON d.defaclobjtype = f.kind, aclexplode(d.defaclacl) a
  WHERE d.defaclrole = us.owner AND d.defaclnamespace IN (0, 'public'::regnamespace) AND a.grantee <> us.owner
),
-- Those of the product and ours; not those of an extension.
relations AS (
  SELECT c.oid, c.relname::text AS thing, c.relowner,
         coalesce(c.relacl, acldefault((CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END)::"char", c.relowner)) AS acl,
         CASE WHEN c.relkind = 'S' THEN ARRAY['SELECT', 'USAGE']
              WHEN c.relname = ANY (string_to_array($8, ',')) THEN ARRAY['SELECT']
              ELSE ARRAY['DELETE', 'INSERT', 'SELECT', 'UPDATE'] END AS wanted
  FROM pg_class c
  WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    AND NOT EXISTS (
      SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
),
future (kind, thing, wanted) AS (
  VALUES ('r'::"char", 'tables to come', ARRAY['DELETE', 'INSERT', 'SELECT', 'UPDATE']),
         ('S'::"char", 'sequences to come', ARRAY['SELECT', 'USAGE'])
),
wanted (thing, grantee, who, privilege) AS (
  SELECT 'the database', l.oid, l.rolname::text, 'CONNECT' FROM logins l WHERE l.is_in_use
  UNION ALL SELECT 'the schema public', us.rw, $5, 'USAGE' FROM us
  UNION ALL SELECT r.thing, us.rw, $5, unnest(r.wanted) FROM us, relations r
  UNION ALL SELECT f.thing, us.rw, $5, unnest(f.wanted) FROM us, future f
),
reached AS (
  SELECT l.rolname, m.roleid FROM logins l JOIN pg_auth_members m ON m.member = l.oid
  UNION SELECT r.rolname, m.roleid FROM reached r JOIN pg_auth_members m ON m.member = r.roleid
),
drifts (text) AS (
  SELECT format('%s has %s on %s', CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(g.grantee)::text END,
                string_agg(DISTINCT g.privilege, ', '), g.thing)
  FROM granted g WHERE g.is_wanted IS NOT TRUE GROUP BY g.grantee, g.thing
  UNION ALL
  SELECT format('%s lacks %s on %s', w.who, string_agg(w.privilege, ', ' ORDER BY w.privilege), w.thing)
  FROM wanted w WHERE NOT EXISTS (
    SELECT FROM granted g WHERE g.is_wanted AND (g.thing, g.grantee, g.privilege) = (w.thing, w.grantee, w.privilege))
  GROUP BY w.who, w.thing
  UNION ALL
  SELECT format('the database belongs to %s', pg_get_userbyid(us.datdba)) FROM us WHERE us.datdba IS DISTINCT FROM us.owner
  UNION ALL
  SELECT format('%s belongs to %s', r.thing, pg_get_userbyid(r.relowner)) FROM us, relations r
  WHERE r.relowner IS DISTINCT FROM us.owner
  UNION ALL
  SELECT format('%s is %s', l.rolname, a.attribute) FROM logins l, LATERAL (
    VALUES ('SUPERUSER', l.rolsuper), ('CREATEDB', l.rolcreatedb), ('CREATEROLE', l.rolcreaterole),
           ('REPLICATION', l.rolreplication), ('BYPASSRLS', l.rolbypassrls)) a (attribute, is_set)
  WHERE a.is_set
  UNION ALL
  SELECT format('%s may hold %s connections, and not %s', l.rolname, l.rolconnlimit, $3::int) FROM logins l
  WHERE l.is_in_use AND l.rolconnlimit <> $3::int
  UNION ALL
  SELECT format('the password of %s ends', l.rolname) FROM logins l WHERE l.is_in_use AND l.rolvaliduntil < 'infinity'
  UNION ALL
  SELECT format('%s has not %s', l.rolname, s.setting) FROM logins l, LATERAL (
    VALUES ('statement_timeout=' || $6), ('idle_in_transaction_session_timeout=' || $7)) s (setting)
  WHERE l.is_in_use AND s.setting <> ALL (coalesce(l.rolconfig, '{}'))
  UNION ALL
  SELECT format('%s has %s in this database', l.rolname, c.setting)
  FROM us, logins l JOIN pg_db_role_setting s ON s.setrole = l.oid, unnest(s.setconfig) c (setting)
  WHERE s.setdatabase = us.oid
    AND split_part(c.setting, '=', 1) IN ('statement_timeout', 'idle_in_transaction_session_timeout')
  UNION ALL
  SELECT format('%s lacks the rights of %s', l.rolname, $5) FROM us, logins l
  WHERE l.is_in_use AND NOT pg_has_role(l.oid, us.rw, 'USAGE')
  UNION ALL
  -- Since Postgres 16 that says nothing of what it has, but of what it gets.
  SELECT format('%s is NOINHERIT', l.rolname) FROM logins l WHERE l.is_in_use AND NOT l.rolinherit
  UNION ALL
  SELECT format('%s is a member of %s', r.rolname, pg_get_userbyid(r.roleid)) FROM us, reached r WHERE r.roleid <> us.rw
  UNION ALL
  SELECT format('%s may make others members of %s', l.rolname, pg_get_userbyid(m.roleid))
  FROM logins l JOIN pg_auth_members m ON m.member = l.oid WHERE m.admin_option
  UNION ALL
  -- All that depends on a role is in this one catalog, by role: no look at thousands of databases.
  SELECT DISTINCT format('%s %s %s', l.rolname, CASE s.deptype WHEN 'o' THEN 'owns' ELSE 'has rights of its own in' END,
    CASE WHEN s.classid = 'pg_database'::regclass
         THEN format('the database %s', (SELECT datname FROM pg_database WHERE oid = s.objid))
         WHEN s.dbid = 0 THEN 'what the server shares'
         ELSE format('something in the database %s', (SELECT datname FROM pg_database WHERE oid = s.dbid)) END)
  FROM us, logins l JOIN pg_shdepend s ON s.refclassid = 'pg_authid'::regclass AND s.refobjid = l.oid
  WHERE s.classid <> 'pg_auth_members'::regclass
    AND NOT (s.classid = 'pg_database'::regclass AND s.objid = us.oid AND s.deptype = 'a')
    -- Told above, by name.
    AND NOT (s.dbid = us.oid AND s.deptype = 'a' AND s.classid = 'pg_namespace'::regclass)
    AND NOT (s.dbid = us.oid AND s.deptype = 'a' AND s.classid = 'pg_class'::regclass
             AND s.objid IN (SELECT r.oid FROM relations r))
)
SELECT text FROM drifts ORDER BY text
