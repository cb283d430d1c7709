-- The suppression list becomes readable: an id to page by (time-ordered, like all ids), who put the address on it, and at which
-- stage and with which codes a relay refused it. The release before inserts rows without these columns, hence the defaults.
alter table suppressions
    add column id uuid,
    add column source text constraint suppressions_source_known check (source in ('recipient', 'relay', 'api')),
    add column stage text,
    add column code text,
    add column campaign_id uuid;

update suppressions set id =
    (lpad(to_hex((extract(epoch from created_at) * 1000)::bigint), 12, '0') || '7' || substr(md5(gen_random_uuid()::text), 1, 3)
        || 'a' || substr(md5(gen_random_uuid()::text), 1, 15))::uuid;

alter table suppressions
    alter column id set default
        (lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0') || '7' || substr(md5(gen_random_uuid()::text), 1, 3)
            || 'a' || substr(md5(gen_random_uuid()::text), 1, 15))::uuid,
    alter column id set not null,
    add constraint suppressions_id unique (tenant_id, id);
