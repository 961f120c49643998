-- Vacuum: tables whose rows come and go.
--
-- Their size says nothing of how many rows have gone, so they are vacuumed by count, and at full speed: a vacuum that
-- takes its time is a vacuum late. Nothing in them is updated in place (what changes is indexed), so pages are filled.
-- How large they get is what comes and goes between two rounds of autovacuum (autovacuum_naptime), and stays so.

set local role agentflow_owner;
set local search_path = agentflow;

do $$
declare t text;
begin
  foreach t in array array['outbox', 'timers', 'subscriptions', 'leftovers', 'blob_uses'] loop
    execute format('alter table %I set (fillfactor = 100, autovacuum_vacuum_scale_factor = 0, '
                   'autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0)', t);
  end loop;
end $$;

-- Runs are updated in place, which cleans up by itself; what a sweep removes is free for new runs soon.
alter table runs set (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 10000);

-- About how many rows a removed run has left, so that a transaction can be filled without looking.
alter table leftovers add column rows integer not null default 1000;
