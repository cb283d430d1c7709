-- The ledger of jobs. Partitioned by the time inside the UUIDv7 id, one partition a month, so that a finished month is
-- dropped as a file instead of deleted row by row. Nothing references a job by foreign key for the same reason.
-- `running` is not a state here: a lease lives in Redis, and handing out work writes nothing to this table.
create type job_state as enum ('scheduled', 'available', 'retryable', 'completed', 'cancelled', 'discarded');

create table jobs (
    id uuid not null,
    tenant_id uuid not null,
    queue text not null,
    kind text not null,
    -- json, not jsonb: it is handed to the worker as it came, never searched.
    args json not null,
    state job_state not null,
    -- 1 runs first, 4 last, inside one tenant.
    priority smallint not null,
    -- The run that is next, under way or was the last; also the fencing token of a finish.
    attempt integer not null default 1,
    max_attempts smallint not null,
    -- Runs that ended in an error (compared with max_attempts) and runs that cost a worker its life.
    failures smallint not null default 0,
    crashes smallint not null default 0,
    run_at timestamptz not null default now(),
    inserted_at timestamptz not null default now(),
    finalized_at timestamptz,
    errors jsonb,
    result json,
    primary key (id)
) partition by range (id);

-- What the index in Redis is rebuilt and swept from.
create index jobs_waiting on jobs (queue, id) where state in ('scheduled', 'available', 'retryable');
-- What is promoted into the look-ahead of the index.
create index jobs_due on jobs (run_at) where state in ('scheduled', 'retryable');
create index jobs_by_tenant on jobs (tenant_id, id);

alter table jobs enable row level security;
alter table jobs force row level security;
create policy jobs_own on jobs to rota_app
    using (tenant_id = nullif(current_setting('rota.tenant_id', true), '')::uuid);
create policy jobs_system on jobs to rota_system using (true);
create policy jobs_owner on jobs to current_user using (true);
grant select, insert, update on jobs to rota_app;
grant select, insert, update, delete on jobs to rota_system;

-- The smallest UUIDv7 of an instant: 48 bits of Unix milliseconds, then zeros (RFC 9562 section 5.7, without the
-- version bits, so that it sorts before every id of that millisecond).
create function uuid_at(instant timestamptz) returns uuid
    language sql immutable strict parallel safe
    return (lpad(to_hex((extract(epoch from instant) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;

-- Makes the partitions from last month to `months_ahead` months on. Runs as the owner, because the scheduler's role may not create tables.
create function ensure_job_partitions(months_ahead integer default 3) returns integer
    language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    month timestamptz;
    made integer := 0;
    partition_name text;
begin
    for month in
        select generate_series(
            date_trunc('month', now() at time zone 'UTC') - interval '1 month',
            date_trunc('month', now() at time zone 'UTC') + make_interval(months => months_ahead),
            interval '1 month') at time zone 'UTC'
    loop
        partition_name := 'jobs_' || to_char(month at time zone 'UTC', 'YYYY_MM');
        if to_regclass('public.' || partition_name) is null then
            execute format(
                'create table public.%I partition of public.jobs for values from (%L) to (%L)
                 with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.1)',
                partition_name,
                public.uuid_at(month),
                public.uuid_at((month at time zone 'UTC' + interval '1 month') at time zone 'UTC'));
            execute format('alter table public.%I enable row level security', partition_name);
            execute format('alter table public.%I force row level security', partition_name);
            made := made + 1;
        end if;
    end loop;
    return made;
end $$;
revoke all on function ensure_job_partitions(integer) from public;
grant execute on function ensure_job_partitions(integer) to rota_system;

-- Drops the months that ended more than `keep` ago and hold nothing but jobs that finished more than `keep` ago. The lock on the parent is
-- waited for half a second at most: the queue must not stand still behind a clean-up, which simply tries again later.
create function drop_finished_job_partitions(keep interval) returns setof text
    language plpgsql security definer set search_path = pg_catalog, public, pg_temp set lock_timeout = '500ms' as $$
declare
    candidate text;
    needed boolean;
begin
    for candidate in
        select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'public.jobs'::regclass
          and to_date(right(c.relname, 7), 'YYYY_MM') + interval '1 month' < now() at time zone 'UTC' - keep
        order by c.relname
    loop
        -- A job may finish long after its month: it is kept as long as any other.
        execute format(
            'select exists (select from public.%I where state in (''scheduled'', ''available'', ''retryable''))
                 or exists (select from public.%I where finalized_at >= now() - $1)',
            candidate,
            candidate)
            into needed using keep;
        if not needed then
            execute format('drop table public.%I', candidate);
            return next candidate;
        end if;
    end loop;
end $$;
revoke all on function drop_finished_job_partitions(interval) from public;
grant execute on function drop_finished_job_partitions(interval) to rota_system;

select ensure_job_partitions();

-- A request's key, and what was answered. Written in the transaction of the work itself: whoever comes second waits for
-- the first one's commit and then reads its answer.
create table idempotency_keys (
    tenant_id uuid not null,
    key text not null,
    fingerprint bytea not null,
    -- The first thing that the request made: a job, a campaign. `response` holds an answer that cannot be made from it.
    first_id uuid not null,
    response json,
    created_at timestamptz not null default now(),
    primary key (tenant_id, key)
);
create index idempotency_keys_by_age on idempotency_keys (created_at);
alter table idempotency_keys enable row level security;
alter table idempotency_keys force row level security;
create policy idempotency_keys_own on idempotency_keys to rota_app
    using (tenant_id = nullif(current_setting('rota.tenant_id', true), '')::uuid);
create policy idempotency_keys_system on idempotency_keys to rota_system using (true);
create policy idempotency_keys_owner on idempotency_keys to current_user using (true);
grant select, insert on idempotency_keys to rota_app;
grant select, insert, delete on idempotency_keys to rota_system;

-- Who leads the schedulers, and since which term. One row.
create table leadership (
    name text primary key,
    term bigint not null,
    holder text not null,
    expires_at timestamptz not null
);
grant select, insert, update on leadership to rota_system;

-- The rebuild that each queue's index must come from: an index of another epoch is not trusted.
create table index_epochs (
    queue text primary key,
    epoch bigint not null,
    rebuilt_at timestamptz not null default now()
);
grant select, insert, update on index_epochs to rota_system;
