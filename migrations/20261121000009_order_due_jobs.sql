-- Promotion and expiry read in pages ordered by time and id. Many jobs may share an instant (a batch for nine o'clock): without the id in
-- the index each page read and sorted all of them, so their number counted twice. The release before this one reads the same
-- columns first and goes on.
-- `queue` and `state` ride along so that the depth of all queues is counted without a look at the jobs themselves. A job's queue never
-- changes and its state is in the condition already, so no update costs more than before.
-- The old ones go when the new ones are there: reading stops only for the moment of the exchange.
create index jobs_due_by_instant on jobs (run_at, id) include (queue, state) where state in ('scheduled', 'retryable');
create index jobs_expiring_by_instant on jobs (expires_at, id)
    where expires_at is not null and state in ('scheduled', 'available', 'retryable');
drop index jobs_due, jobs_expiring;
alter index jobs_due_by_instant rename to jobs_due;
alter index jobs_expiring_by_instant rename to jobs_expiring;
