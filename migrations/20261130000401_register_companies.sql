-- Companies that register themselves, users who follow a link in a mail before they can sign in, and suspended companies. The running release signs
-- in only users whose state is `active`, so it refuses the new states, and it goes on serving a suspended company until it is replaced.
alter table users
    drop constraint users_state_known,
    add constraint users_state_known check (state in ('active', 'deactivated', 'invited', 'unverified')),
    -- When the last mail about the account was enqueued: such mails are bounded by it.
    add column account_mail_at timestamptz;
-- Mails to one address are bounded across companies.
grant select (account_mail_at) on users to rota_system;

alter table tenants
    -- Since when the company's credentials are refused.
    add column suspended_at timestamptz,
    -- Why an operator suspended or reactivated it last.
    add column suspension_reason text;

-- Registration creates a company as that company, in the lowest tier.
create policy tenants_register on tenants as restrictive for insert to rota_app with check (tier = 'trial' and suspended_at is null);
grant insert (id, slug, name, tier), update (name) on tenants to rota_app;
