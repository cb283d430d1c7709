-- Violations of tenant isolation: every row is a finding. Partitions are checked one by one, since
-- each has its own flags; they need no policy, since only the owner may name them.
with tenant_table as (
    select c.oid, c.oid::regclass::text as name, c.relrowsecurity, c.relforcerowsecurity, c.relowner, c.relispartition
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped
    where c.relkind in ('r', 'p') and n.nspname not in ('pg_catalog', 'information_schema')
)
select 'no forced row level security' as finding, name as object from tenant_table
where not (relrowsecurity and relforcerowsecurity)
union all
select 'no policy', name from tenant_table t
where not relispartition and not exists (select from pg_policy p where p.polrelid = t.oid)
union all
select 'app role reaches a partition past its parent', name from tenant_table
where relispartition and has_table_privilege('rota_app', oid, 'select, insert, update, delete')
union all
-- After `set local` a setting is '' and not null.
select 'policy breaks on an empty setting', p.polrelid::regclass || '.' || p.polname from pg_policy p
where coalesce(pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)) ilike '%current_setting%'
  and coalesce(pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)) not ilike '%nullif%'
union all
select 'role bypasses row level security', rolname from pg_roles
where rolname in ('rota_app', 'rota_system') and (rolsuper or rolbypassrls)
union all
select 'app role is a member of a stronger one', r.rolname from pg_roles r
where r.rolname <> 'rota_app' and pg_has_role('rota_app', r.oid, 'member')
union all
select 'unprivileged role owns a tenant table', name from tenant_table
where pg_get_userbyid(relowner) in ('rota_app', 'rota_system')
union all
-- A primary key of globally unique ids reveals nothing.
select 'unique does not lead with the tenant', i.indexrelid::regclass || ' on ' || t.name
from tenant_table t
join pg_index i on i.indrelid = t.oid and i.indisunique and not i.indisprimary
join pg_attribute a on a.attrelid = t.oid and a.attnum = i.indkey[0]
where a.attname <> 'tenant_id'
union all
select 'view runs with its owner''s rights', c.oid::regclass::text
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'v' and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname not like 'pg_temp%'
  and coalesce(c.reloptions::text, '') !~ 'security_invoker=(true|on)'
union all
select 'materialized view reachable', c.oid::regclass::text from pg_class c
where c.relkind = 'm' and has_table_privilege('rota_app', c.oid, 'select')
union all
select 'app role may run a function with its owner''s rights', p.oid::regprocedure::text
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where p.prosecdef and n.nspname not in ('pg_catalog', 'information_schema') and has_function_privilege('rota_app', p.oid, 'execute')
union all
select 'app role may truncate', name from tenant_table where has_table_privilege('rota_app', oid, 'truncate')
order by 1, 2
