-- A process says in its readiness whether the schema fits its release: both roles may see which migrations were made.
-- `api migrate` has made the table before it runs the first migration; where migrations are applied by hand it is empty.
create table if not exists _sqlx_migrations (
    version bigint primary key,
    description text not null,
    installed_on timestamptz not null default now(),
    success boolean not null,
    checksum bytea not null,
    execution_time bigint not null
);
grant select on _sqlx_migrations to rota_app, rota_system;

-- Temporary tables and objects of one's own are for the owner: the two roles work with what migrations make.
do $$ begin
    execute format('revoke temporary, create on database %I from public', current_database());
exception when insufficient_privilege then
    raise notice 'the database belongs to somebody else, who should run: revoke temporary on database % from public', current_database();
end $$;
do $$ begin
    revoke create on schema public from public;
exception when insufficient_privilege then
    raise notice 'the schema public belongs to somebody else, who should run: revoke create on schema public from public';
end $$;
