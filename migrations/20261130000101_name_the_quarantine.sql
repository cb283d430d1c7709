-- Expand: the column takes over from `last_chance`, which is dropped once no release writes it. Values are not copied: a job that runs in
-- quarantine while the releases change is allowed one more such run if its worker dies.
alter table jobs add column quarantine_token bytea;
comment on column jobs.quarantine_token is
    'Token of the lease under which the job last ran in quarantine, alone in its worker after two crashes; null if it never did.';
