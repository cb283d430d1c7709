-- Webhooks: where a tenant wants to hear of its jobs' ends (endpoints), what the messages are signed with (secrets), and each
-- message with what became of it (deliveries). Deliveries are made in the transaction that ends the job.
create table webhook_endpoints (
    tenant_id uuid not null references tenants (id),
    id uuid not null,
    url text not null,
    description text,
    events text[] not null
        constraint webhook_endpoints_events_known
            check (cardinality(events) > 0 and events <@ array['job.completed', 'job.discarded', 'job.cancelled']),
    -- Only jobs of these kinds; all if null.
    kinds text[],
    -- The first failure since the last success.
    failing_since timestamptz,
    disabled_at timestamptz,
    disabled_reason text
        constraint webhook_endpoints_reason_known check (disabled_reason in ('gone', 'failing', 'manual')),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    primary key (tenant_id, id),
    constraint webhook_endpoints_disabled_for_a_reason check ((disabled_at is null) = (disabled_reason is null))
);
-- Whose jobs are listened to at all: read every second by each process that ends jobs.
create index webhook_endpoints_enabled on webhook_endpoints (tenant_id) where disabled_at is null;

-- A table of its own, because rota_app writes secrets and never reads them: see the grants. The newest has no end; one that
-- was rotated away is valid until its own.
create table webhook_secrets (
    tenant_id uuid not null,
    endpoint_id uuid not null,
    id uuid not null,
    secret bytea not null
        constraint webhook_secrets_length check (octet_length(secret) between 24 and 64),
    expires_at timestamptz,
    primary key (tenant_id, endpoint_id, id),
    foreign key (tenant_id, endpoint_id) references webhook_endpoints (tenant_id, id) on delete cascade
);

-- No foreign keys: a job's end must not fail because an endpoint is deleted at that moment, and jobs go by whole months.
create table webhook_deliveries (
    tenant_id uuid not null,
    -- Also the message's id, the same on every attempt.
    id uuid not null,
    endpoint_id uuid not null,
    event_type text not null,
    -- Whose end it tells of; null in a test message.
    job_id uuid,
    -- The bytes that are signed and sent, so that every attempt sends the same.
    body text not null,
    state text not null default 'pending'
        constraint webhook_deliveries_state_known check (state in ('pending', 'delivered', 'failed', 'held')),
    -- The newest attempts: at, status, duration_ms, error, answer.
    attempts jsonb not null default '[]',
    attempt_count integer not null default 0,
    -- The job that sends it; a redelivery is another job.
    delivery_job_id uuid not null,
    created_at timestamptz not null default now(),
    delivered_at timestamptz,
    primary key (tenant_id, id)
);
create index webhook_deliveries_by_endpoint on webhook_deliveries (tenant_id, endpoint_id, id);
create index webhook_deliveries_held on webhook_deliveries (tenant_id, endpoint_id, id) where state = 'held';
create index webhook_deliveries_by_age on webhook_deliveries (created_at);

do $$
declare t text;
begin
    foreach t in array array['webhook_endpoints', 'webhook_secrets', 'webhook_deliveries'] loop
        execute format('alter table %I enable row level security', t);
        execute format('alter table %I force row level security', t);
        execute format('create policy %I on %I to rota_app using (tenant_id = nullif(current_setting(''rota.tenant_id'', true), '''')::uuid)', t || '_own', t);
        execute format('create policy %I on %I to rota_system using (true)', t || '_system', t);
        execute format('create policy %I on %I to current_user using (true)', t || '_owner', t);
    end loop;
end $$;

grant select, insert, update, delete on webhook_endpoints to rota_app;
grant select on webhook_endpoints to rota_system;
grant insert, delete on webhook_secrets to rota_app;
grant select (tenant_id, endpoint_id, id, expires_at), update (expires_at) on webhook_secrets to rota_app;
grant select on webhook_secrets to rota_system;
grant select, insert, update on webhook_deliveries to rota_app;
grant select, insert, delete on webhook_deliveries to rota_system;
