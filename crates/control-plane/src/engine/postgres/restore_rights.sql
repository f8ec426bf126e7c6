-- Makes the rights in a tenant's database, and on it, what they were made. As its owner; {…} are names of ours.
-- What belongs to others is left, and found again.
DO $$
DECLARE it record; others text;
BEGIN
  SELECT 'PUBLIC, ' || string_agg(quote_ident(rolname), ', ') INTO others
  FROM pg_roles WHERE rolname IN ('{group}', '{role}', '{other}');
  REVOKE ALL ON DATABASE "{database}" FROM PUBLIC, "{group}";
  -- Login roles of other tenants' databases have no business in this one.
  FOR it IN
    SELECT DISTINCT r.rolname FROM pg_database d, aclexplode(d.datacl) a JOIN pg_roles r ON r.oid = a.grantee
    WHERE d.datname = '{database}' AND r.rolname ~ '^fh_[a-z0-9]{24}_[ab]$' AND r.rolname NOT IN ('{role}', '{other}')
  LOOP
    EXECUTE format('REVOKE ALL ON DATABASE "{database}" FROM %I', it.rolname);
  END LOOP;
  EXECUTE format('REVOKE ALL ON SCHEMA public FROM %s', others);
  GRANT USAGE ON SCHEMA public TO "{group}";
  EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE ALL ON TABLES FROM %s', others);
  EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE ALL ON SEQUENCES FROM %s', others);
  ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO "{group}";
  ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO "{group}";
  FOR it IN
    SELECT c.oid::regclass AS name, CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind,
           CASE WHEN c.relkind = 'S' THEN 'USAGE, SELECT' WHEN c.relname IN ({tables_of_ours}) THEN 'SELECT'
                ELSE 'SELECT, INSERT, UPDATE, DELETE' END AS wanted
    FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
      AND pg_has_role(c.relowner, 'USAGE')
      AND NOT EXISTS (
        SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
  LOOP
    EXECUTE format('REVOKE ALL ON %s %s FROM %s', it.kind, it.name, others);
    EXECUTE format('GRANT %s ON %s %s TO "{group}"', it.wanted, it.kind, it.name);
  END LOOP;
END $$
