-- What the end of a job still has to do for the jobs that wait for it. An end releases or cancels a bounded number of them in its own
-- transaction; a row here says that rows of job_dependencies which name the job are left, and the scheduler continues until none is. A job
-- that waits cannot run meanwhile, because its waits_for counts those rows.
create table job_cascades (
    tenant_id uuid not null,
    job_id uuid not null,
    -- Whether the job failed, so that those which wait for it are cancelled unless they run on failure.
    fails boolean not null,
    created_at timestamptz not null default now(),
    primary key (tenant_id, job_id)
);
alter table job_cascades enable row level security;
alter table job_cascades force row level security;
create policy job_cascades_own on job_cascades to rota_app
    using (tenant_id = nullif(current_setting('rota.tenant_id', true), '')::uuid);
create policy job_cascades_system on job_cascades to rota_system using (true);
create policy job_cascades_owner on job_cascades to current_user using (true);
grant select, insert on job_cascades to rota_app;
grant select, insert, update, delete on job_cascades to rota_system;
