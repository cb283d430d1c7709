-- What ties jobs to each other and to their time: unique keys, batches, dependencies, expiry, the version of the args.
-- A job without any of these is inserted and completed as before: one row, no other table, no further index. The defaults are
-- constants, so no row is rewritten, and the release before this one goes on inserting and finishing beside it.
alter table jobs
    -- Jobs (or the batch) that must be final before this one may run; above 0 it is `scheduled` and in no index.
    add column waits_for smallint not null default 0,
    -- Who cares about this job's end: 1 its unique key, 2 its batch, 4 jobs that wait for it, 8 webhooks. 0 is the fast way.
    add column hooks smallint not null default 0,
    -- The form of the args; a worker that knows only older forms leaves the job for another.
    add column args_version smallint not null default 1,
    -- No run begins after this.
    add column expires_at timestamptz,
    add column unique_key text,
    -- The batch that the job belongs to (hooks has 2) or that it completes (it has not).
    add column batch_id uuid;

-- The sweep of expired jobs would otherwise read all that waits. Jobs that never expire are not in it.
create index jobs_expiring on jobs (expires_at)
    where expires_at is not null and state in ('scheduled', 'available', 'retryable');

-- Who holds a key: at most one job of a tenant. Without a time the key is held until its job is final.
create table unique_keys (
    tenant_id uuid not null,
    key text not null,
    job_id uuid not null,
    expires_at timestamptz,
    primary key (tenant_id, key)
);
create index unique_keys_expiring on unique_keys (expires_at) where expires_at is not null;
alter table unique_keys enable row level security;
alter table unique_keys force row level security;
create policy unique_keys_own on unique_keys to rota_app
    using (tenant_id = nullif(current_setting('rota.tenant_id', true), '')::uuid);
create policy unique_keys_system on unique_keys to rota_system using (true);
create policy unique_keys_owner on unique_keys to current_user using (true);
grant select, insert, update, delete on unique_keys to rota_app, rota_system;

-- Jobs that were submitted together, counted down as they become final. When none is pending the completion job stops waiting.
create table batches (
    tenant_id uuid not null,
    id uuid not null,
    total integer not null,
    pending integer not null,
    completed integer not null default 0,
    discarded integer not null default 0,
    cancelled integer not null default 0,
    completion_job uuid not null,
    created_at timestamptz not null default now(),
    finished_at timestamptz,
    primary key (tenant_id, id),
    constraint batches_add_up check (pending >= 0 and pending + completed + discarded + cancelled = total)
);
create index batches_finished on batches (finished_at) where finished_at is not null;
alter table batches enable row level security;
alter table batches force row level security;
create policy batches_own on batches to rota_app
    using (tenant_id = nullif(current_setting('rota.tenant_id', true), '')::uuid);
create policy batches_system on batches to rota_system using (true);
create policy batches_owner on batches to current_user using (true);
grant select, insert, update on batches to rota_app;
grant select, insert, update, delete on batches to rota_system;

-- What a job still waits for: a row goes when the job it names is final, so waits_for is the number of rows that are left.
create table job_dependencies (
    tenant_id uuid not null,
    job_id uuid not null,
    depends_on uuid not null,
    -- What becomes of job_id if depends_on is discarded or cancelled: true runs it all the same, false cancels it.
    run_on_failure boolean not null,
    primary key (tenant_id, job_id, depends_on)
);
create index job_dependencies_by_dependency on job_dependencies (tenant_id, depends_on);
alter table job_dependencies enable row level security;
alter table job_dependencies force row level security;
create policy job_dependencies_own on job_dependencies to rota_app
    using (tenant_id = nullif(current_setting('rota.tenant_id', true), '')::uuid);
create policy job_dependencies_system on job_dependencies to rota_system using (true);
create policy job_dependencies_owner on job_dependencies to current_user using (true);
grant select, insert, delete on job_dependencies to rota_app, rota_system;

-- Which jobs of a batch were refused when its key was first used: a repeat is told the same.
alter table idempotency_keys add column refused json;
