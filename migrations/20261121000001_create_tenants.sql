-- Tenants and the two unprivileged roles' door to them. Every tenant table in later migrations follows this shape:
-- row level security enabled and forced, one policy for rota_app on the transaction's tenant, and for rota_system a
-- policy and a grant only where the queue writer, the rescuer or the scheduler needs that table.
-- The roles themselves exist before migrations run (`api migrate` makes them), because they belong to the cluster.
grant usage on schema public to rota_app, rota_system;

create table tenants (
    id uuid primary key,
    slug text not null,
    name text not null,
    tier text not null default 'free'
        constraint tenants_tier_known check (tier in ('free', 'starter', 'professional', 'enterprise', 'custom', 'trial')),
    created_at timestamptz not null default now(),
    constraint tenants_slug_key unique (slug)
);
alter table tenants enable row level security;
alter table tenants force row level security;
create policy tenants_own on tenants to rota_app
    using (id = nullif(current_setting('rota.tenant_id', true), '')::uuid);
create policy tenants_system on tenants to rota_system using (true);
create policy tenants_owner on tenants to current_user using (true);
grant select on tenants to rota_app, rota_system;

-- A key is presented as rota_<id>_<secret>: the id finds the row, the hash of the secret proves it.
create table api_keys (
    tenant_id uuid not null references tenants (id),
    id uuid not null,
    name text not null,
    secret_hash bytea not null,
    scopes text[] not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    primary key (id)
);
create index api_keys_by_tenant on api_keys (tenant_id, id);
alter table api_keys enable row level security;
alter table api_keys force row level security;
create policy api_keys_own on api_keys to rota_app
    using (tenant_id = nullif(current_setting('rota.tenant_id', true), '')::uuid);
-- Authentication happens before the tenant is known: rota_system looks one key up by its id.
create policy api_keys_system on api_keys for select to rota_system using (true);
create policy api_keys_owner on api_keys to current_user using (true);
grant select, insert, update on api_keys to rota_app;
grant select on api_keys to rota_system;
