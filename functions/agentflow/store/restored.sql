-- What is done once to a database that was put back from a backup, as its administrator.

-- name: as_of
-- How it was when the backup was made.
select max(updated_at), count(*) filter (where finished_at is null) from agentflow.runs;

-- name: doubt_calls
-- Every call under way that is claimed before it is made, and whose claim is not there, may have been made since: it is
-- claimed by somebody who is never heard of again. Rows as the outbox has them; of calls that were halted, by the timers
-- that look after them.
with asked as (
  select tenant_id, run_id, key, (data ->> 'epoch')::int as epoch, coalesce((data ->> 'once')::boolean, false) as once
  from agentflow.outbox
  where consumer in ('invoke_llm', 'run_tool')
    and (coalesce((data ->> 'once')::boolean, false) or coalesce((data ->> 'hold_micro')::bigint, 0) > 0)
  union all
  select tenant_id, run_id, step || '.' || attempt, 0, false from agentflow.timers where key like 'unclaimed:%'
), doubted as (
  insert into agentflow.claims (tenant_id, run_id, key, epoch, claimant, until)
  select tenant_id, run_id, key, epoch, gen_random_uuid(), clock_timestamp() from asked
  on conflict (tenant_id, run_id, key) do update set until = least(claims.until, excluded.until)
)
select count(*) filter (where once), count(*) filter (where not once) from asked;

-- name: send_again
-- Nothing of it is on the bus: whatever is not held back by a limit is due.
update agentflow.outbox set due_at = clock_timestamp(), tries = 0 where admitted is not false;

-- name: note
-- In every tenant's chain.
insert into agentflow.unsealed (tenant_id, kind, data)
select tenant_id, 'database.restored', json_build_object('by', session_user, 'as_of', %(as_of)s::timestamptz)
from agentflow.tenants;

-- name: move_in
-- From now on this is where the database lives.
update public.agentflow_migrations set system = (select system_identifier::text from pg_control_system());
