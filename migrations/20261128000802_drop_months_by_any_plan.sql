-- The age of a month is reckoned from names that have a month in them, and from no others. In which order a planner looks at conditions is
-- its own choice: by default it read the names of all relations as dates before it knew which are partitions, and failed.
-- The lock on the parent is waited for half a second at most, as before.
create or replace function drop_finished_job_partitions(keep interval) returns setof text
    language plpgsql security definer set search_path = pg_catalog, public, pg_temp set lock_timeout = '500ms' as $$
declare
    candidates text[];
    candidate text;
    needed boolean;
begin
    candidates := array(
        select c.relname::text from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'public.jobs'::regclass
          and case when c.relname ~ '[0-9]{4}_[0-9]{2}$'
                   then to_date(right(c.relname, 7), 'YYYY_MM') + interval '1 month' < now() at time zone 'UTC' - keep
                   else false end
        order by c.relname);
    foreach candidate in array candidates loop
        -- A job may finish long after its month: it is kept as long as any other.
        execute format(
            'select exists (select from public.%I where state in (''scheduled'', ''available'', ''retryable''))
                 or exists (select from public.%I where finalized_at >= now() - $1)',
            candidate,
            candidate)
            into needed using keep;
        if not needed then
            execute format('drop table public.%I', candidate);
            return next candidate;
        end if;
    end loop;
end $$;
