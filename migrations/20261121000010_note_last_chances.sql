-- Only the death of a worker that runs nothing but one job says that the job is to blame (docs/decisions/0004).
alter table jobs add column last_chance bytea;
comment on column jobs.last_chance is
    'Token of the lease under which the job last ran alone in its worker after two crashes; null if it never did.';
