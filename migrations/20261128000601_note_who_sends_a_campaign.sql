-- A campaign is sent by a job. When that job ends without the campaign having ended (cancelled, discarded, lost), the leading scheduler
-- finds the campaign and either resumes it or pauses it with a reason.
alter table campaigns
    -- The job of the newest start. No foreign key: jobs go by whole months.
    add column send_job_id uuid;

-- What the scheduler looks through: few of all campaigns are under way.
create index campaigns_under_way on campaigns (tenant_id, id) where state in ('scheduled', 'sending');

create policy campaigns_under_way_system on campaigns for select to rota_system using (state in ('scheduled', 'sending'));
grant select (tenant_id, id, state, send_generation) on campaigns to rota_system;
