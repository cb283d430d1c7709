-- Email campaigns: the people of a tenant (leads), who of them gets which campaign (recipients), and who must not be
-- written to again (suppressions). A recipient row is the unit of "one mail": its id makes the Message-ID.
create table campaigns (
    tenant_id uuid not null references tenants (id),
    id uuid not null,
    name text not null,
    state text not null default 'draft'
        constraint campaigns_state_known check (state in ('draft', 'scheduled', 'sending', 'paused', 'cancelled', 'completed')),
    subject text not null,
    text_body text not null,
    html_body text,
    from_address text not null,
    from_name text,
    send_at timestamptz,
    started_at timestamptz,
    finished_at timestamptz,
    created_at timestamptz not null default now(),
    -- Raised by every start, so that a fan-out job of an earlier start finds that it is not meant any more.
    send_generation integer not null default 0,
    primary key (tenant_id, id)
);

create table leads (
    tenant_id uuid not null references tenants (id),
    id uuid not null,
    email text not null,
    -- The address lower-cased: what makes two leads the same.
    email_key text not null,
    variables jsonb not null default '{}',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    primary key (tenant_id, id),
    constraint leads_email_key unique (tenant_id, email_key)
);

create table recipients (
    tenant_id uuid not null,
    id uuid not null,
    campaign_id uuid not null,
    lead_id uuid not null,
    state text not null default 'pending'
        constraint recipients_state_known check (state in ('pending', 'queued', 'sent', 'rejected', 'suppressed', 'failed', 'cancelled')),
    -- The job that sends this mail, once it is queued. No foreign key: jobs go by whole months.
    job_id uuid,
    -- Why a mail was not sent, in words for the tenant.
    reason text,
    sent_at timestamptz,
    primary key (tenant_id, id),
    constraint recipients_once unique (tenant_id, campaign_id, lead_id),
    foreign key (tenant_id, campaign_id) references campaigns (tenant_id, id) on delete cascade,
    foreign key (tenant_id, lead_id) references leads (tenant_id, id) on delete cascade
);
create index recipients_by_state on recipients (tenant_id, campaign_id, state, id);

create table suppressions (
    tenant_id uuid not null references tenants (id),
    email_key text not null,
    reason text not null
        constraint suppressions_reason_known check (reason in ('unsubscribed', 'rejected', 'manual')),
    detail text,
    created_at timestamptz not null default now(),
    primary key (tenant_id, email_key)
);

do $$
declare t text;
begin
    foreach t in array array['campaigns', 'leads', 'recipients', 'suppressions'] loop
        execute format('alter table %I enable row level security', t);
        execute format('alter table %I force row level security', t);
        execute format('create policy %I on %I to rota_app using (tenant_id = nullif(current_setting(''rota.tenant_id'', true), '''')::uuid)', t || '_own', t);
        execute format('create policy %I on %I to current_user using (true)', t || '_owner', t);
        execute format('grant select, insert, update, delete on %I to rota_app', t);
    end loop;
end $$;
