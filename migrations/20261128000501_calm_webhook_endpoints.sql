-- An endpoint that fails is tried by one message at a time (a circuit breaker), and a tenant has one endpoint for each URL: twenty for
-- one URL would be sent every message twenty times.
alter table webhook_endpoints
    -- The URL as it is compared; null in rows of the release before, whose doubles stay as they are.
    add column url_key text,
    -- Failures since the last success.
    add column failure_count integer not null default 0,
    -- While it fails: when the next message may be tried.
    add column probe_at timestamptz;

update webhook_endpoints e set url_key = e.url
where not exists (select from webhook_endpoints o where o.tenant_id = e.tenant_id and o.url = e.url and o.id < e.id);

create unique index webhook_endpoints_one_a_url on webhook_endpoints (tenant_id, url_key);
