-- Makes a database's login roles what they were made. As the admin; {…} are names and numbers of ours.
-- What the admin has no right to change stays as it is, and is found again.
DO $$
DECLARE it record;
BEGIN
  FOR it IN
    SELECT r.rolname, a.attribute FROM pg_roles r, LATERAL (
      VALUES ('SUPERUSER', r.rolsuper), ('CREATEDB', r.rolcreatedb), ('CREATEROLE', r.rolcreaterole),
             ('REPLICATION', r.rolreplication), ('BYPASSRLS', r.rolbypassrls)) a (attribute, is_set)
    WHERE a.is_set AND r.rolname IN ('{role}', '{other}')
  LOOP
    BEGIN EXECUTE format('ALTER ROLE %I NO%s', it.rolname, it.attribute);
    EXCEPTION WHEN insufficient_privilege THEN NULL; END;
  END LOOP;
  FOR it IN
    SELECT r.rolname, pg_get_userbyid(m.roleid) AS reached
    FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member
    WHERE r.rolname IN ('{role}', '{other}') AND pg_get_userbyid(m.roleid) <> '{group}'
  LOOP
    BEGIN EXECUTE format('REVOKE %I FROM %I', it.reached, it.rolname);
    EXCEPTION WHEN insufficient_privilege THEN NULL; END;
  END LOOP;
  FOR it IN
    SELECT DISTINCT r.rolname, d.datname
    FROM pg_roles r JOIN pg_shdepend s ON s.refclassid = 'pg_authid'::regclass AND s.refobjid = r.oid
      AND s.classid = 'pg_database'::regclass AND s.deptype = 'a'
    JOIN pg_database d ON d.oid = s.objid
    WHERE r.rolname IN ('{role}', '{other}')
  LOOP
    BEGIN EXECUTE format('REVOKE ALL ON DATABASE %I FROM %I', it.datname, it.rolname);
    EXCEPTION WHEN insufficient_privilege THEN NULL; END;
  END LOOP;
  FOR it IN SELECT rolname FROM pg_roles WHERE rolname IN ('{role}', '{other}') LOOP
    EXECUTE format('GRANT CONNECT ON DATABASE "{database}" TO %I', it.rolname);
    EXECUTE format('GRANT "{group}" TO %I{inherits}', it.rolname);
    EXECUTE format('REVOKE ADMIN OPTION FOR "{group}" FROM %I', it.rolname);
    EXECUTE format('ALTER ROLE %I INHERIT CONNECTION LIMIT {connections} VALID UNTIL %L', it.rolname, 'infinity');
    EXECUTE format('ALTER ROLE %I SET statement_timeout = %L', it.rolname, '{statement_timeout}');
    EXECUTE format('ALTER ROLE %I SET idle_in_transaction_session_timeout = %L', it.rolname, '{idle_timeout}');
    EXECUTE format('ALTER ROLE %I IN DATABASE "{database}" RESET statement_timeout', it.rolname);
    EXECUTE format('ALTER ROLE %I IN DATABASE "{database}" RESET idle_in_transaction_session_timeout', it.rolname);
  END LOOP;
END $$
