-- Users and API clients of a tenant, their sessions, and who created an API key. The running release knows none of them: its keys have no creator, and
-- it goes on accepting every key by its scopes alone until it is replaced.
create table users (
    tenant_id uuid not null references tenants (id),
    id uuid not null,
    email text not null,
    -- The address in the form used for comparison.
    email_key text not null,
    name text not null,
    -- The name of a role. Which roles exist is decided by the release, so there is no check.
    role text not null,
    -- Argon2id in PHC format; null: no password was set, so nobody can sign in with one.
    password_hash text,
    state text not null default 'active' constraint users_state_known check (state in ('active', 'deactivated')),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    last_sign_in_at timestamptz,
    primary key (tenant_id, id),
    constraint users_email_key unique (tenant_id, email_key)
);
-- A person who signs in without naming the company is found by the address alone.
create index users_by_email on users (email_key);

-- Programs that exchange an id and a secret for tokens, as users exchange a password.
create table api_clients (
    tenant_id uuid not null references tenants (id),
    id uuid not null,
    name text not null,
    secret_hash bytea not null,
    scopes text[] not null,
    -- The user whose permissions bound the client's; null: a command of an operator created it.
    created_by uuid,
    created_at timestamptz not null default now(),
    revoked_at timestamptz,
    primary key (tenant_id, id),
    foreign key (tenant_id, created_by) references users (tenant_id, id)
);
-- The client is found by its id before the tenant is known.
create index api_clients_by_id on api_clients (id);

-- When a client asked for tokens, and from where.
create table api_client_uses (
    tenant_id uuid not null,
    id uuid not null,
    client_id uuid not null,
    action text not null constraint api_client_uses_action_known check (action in ('token', 'refresh')),
    succeeded boolean not null,
    address inet not null,
    used_at timestamptz not null default now(),
    primary key (tenant_id, id),
    foreign key (tenant_id, client_id) references api_clients (tenant_id, id) on delete cascade
);
create index api_client_uses_of_client on api_client_uses (tenant_id, client_id, id);
create index api_client_uses_by_time on api_client_uses (used_at);

-- A session is what its refresh tokens belong to: one family. Only the newest token (number `counter`) may be used, and the one before
-- it for a short time after `issued_at`; an older one ends the session.
create table sessions (
    tenant_id uuid not null,
    id uuid not null,
    -- Whose session it is: a user's or a client's.
    user_id uuid,
    client_id uuid,
    -- The key of the MACs in the session's refresh tokens.
    secret bytea not null,
    counter bigint not null default 1,
    -- When the newest refresh token was issued; its access token counts from here.
    issued_at timestamptz not null default now(),
    -- Whether the token before the newest one was used after its time: it may be, once.
    parent_used_late boolean not null default false,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    ended_at timestamptz,
    end_reason text constraint sessions_end_reason_known
        check (end_reason in ('signed_out', 'token_reused', 'password_changed', 'deactivated', 'revoked')),
    primary key (tenant_id, id),
    constraint sessions_of_one check ((user_id is null) <> (client_id is null)),
    foreign key (tenant_id, user_id) references users (tenant_id, id) on delete cascade,
    foreign key (tenant_id, client_id) references api_clients (tenant_id, id) on delete cascade
);
create index sessions_of_user on sessions (tenant_id, user_id) where ended_at is null;
create index sessions_of_client on sessions (tenant_id, client_id) where ended_at is null;
-- Sessions that expired are deleted after a while.
create index sessions_expiring on sessions (expires_at);

alter table api_keys
    -- The user whose permissions bound the key's; null: a command of an operator created it.
    add column created_by uuid,
    -- The key that replaced it.
    add column replaced_by uuid,
    add constraint api_keys_creator foreign key (tenant_id, created_by) references users (tenant_id, id);

do $$
declare t text;
begin
    foreach t in array array['users', 'api_clients', 'api_client_uses', 'sessions'] loop
        execute format('alter table %I enable row level security', t);
        execute format('alter table %I force row level security', t);
        execute format('create policy %I on %I to rota_app using (tenant_id = nullif(current_setting(''rota.tenant_id'', true), '''')::uuid)', t || '_own', t);
        execute format('create policy %I on %I to current_user using (true)', t || '_owner', t);
        execute format('grant select, insert, update on %I to rota_app', t);
    end loop;
end $$;
revoke update on api_client_uses from rota_app;

-- Authentication happens before the tenant is known. It finds users and sessions, but reads neither password hashes nor the sessions' keys.
create policy users_system on users for select to rota_system using (true);
create policy sessions_system on sessions to rota_system using (true);
create policy api_clients_system on api_clients for select to rota_system using (true);
create policy api_client_uses_system on api_client_uses to rota_system using (true);
grant select (tenant_id, id, email_key, role, state) on users to rota_system;
grant select (tenant_id, id, scopes, created_by, revoked_at) on api_clients to rota_system;
grant select (tenant_id, id, user_id, client_id, expires_at, ended_at), delete on sessions to rota_system;
grant select (tenant_id, id, used_at), delete on api_client_uses to rota_system;
