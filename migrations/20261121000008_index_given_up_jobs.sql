-- Redriving by filter, and counting what it would mean, reads jobs that were given up: without this index it read all of the tenant's.
-- Enqueueing and completing do not write it, because their rows never match; it costs them the look at the condition. The
-- columns are in other indexes already, so no update leaves its page because of it.
create index jobs_given_up on jobs (tenant_id, id) where state in ('discarded', 'cancelled');
