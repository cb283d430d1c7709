-- What operators restrict: whole queues, and single tenants inside them. The index carries a copy that the scripts read; the
-- leading scheduler brings the copy into agreement with these rows.
create table queue_settings (
    queue text primary key,
    paused boolean not null default false,
    updated_at timestamptz not null default now()
);
grant select, insert, update on queue_settings to rota_system;

-- A column that is null says nothing: the row of the queue goes before the tenant's row for all queues ('*'), and that before
-- what follows from the tenant's tier.
create table tenant_limits (
    tenant_id uuid not null references tenants (id),
    queue text not null,
    weight integer
        constraint tenant_limits_weight_range check (weight between 1 and 1000),
    max_running integer
        constraint tenant_limits_max_running_range check (max_running between 1 and 1000000),
    rate_per_second double precision
        constraint tenant_limits_rate_range check (rate_per_second >= 0.001 and rate_per_second <= 1000000),
    -- How many may start at once after a pause; comes with the rate.
    burst integer
        constraint tenant_limits_burst_range check (burst between 1 and 1000000),
    paused boolean,
    updated_at timestamptz not null default now(),
    primary key (tenant_id, queue),
    constraint tenant_limits_rate_has_burst check ((rate_per_second is null) = (burst is null))
);
alter table tenant_limits enable row level security;
alter table tenant_limits force row level security;
create policy tenant_limits_own on tenant_limits for select to rota_app
    using (tenant_id = nullif(current_setting('rota.tenant_id', true), '')::uuid);
create policy tenant_limits_system on tenant_limits to rota_system using (true);
create policy tenant_limits_owner on tenant_limits to current_user using (true);
grant select on tenant_limits to rota_app;
grant select, insert, update, delete on tenant_limits to rota_system;
