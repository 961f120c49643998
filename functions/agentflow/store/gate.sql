-- The gatekeeper's statements, run as agentflow_relay: it sees every tenant's outbox and limits.

-- name: try_lead
-- One leader at a time. Who can't be it learns whether something waits and when the leader was last seen at work.
select pg_try_advisory_lock(%b), exists (select from agentflow.outbox where not admitted),
       (select seen_at from agentflow.gatekeeper where tenant_id = '00000000-0000-0000-0000-000000000000');

-- name: depose
-- End the session of a leader that holds the lock and does nothing: its process is stopped, or can't be reached.
select pg_terminate_backend(l.pid)
from pg_locks l join pg_database d on d.oid = l.database, agentflow.gatekeeper g
where l.locktype = 'advisory' and l.granted and d.datname = current_database() and l.objsubid = 1
  and l.classid = (%b::bigint >> 32)::int::oid and l.objid = (%b::bigint & 4294967295)::oid and g.seen_at = %b and g.tenant_id = '00000000-0000-0000-0000-000000000000';

-- name: begin_epoch
-- Waits for an admission that is being written under the epoch before; what comes later under it changes nothing.
update agentflow.gatekeeper set epoch = epoch + 1, seen_at = clock_timestamp()
where tenant_id = '00000000-0000-0000-0000-000000000000'
returning epoch;

-- name: still_lead
update agentflow.gatekeeper set seen_at = clock_timestamp()
where tenant_id = '00000000-0000-0000-0000-000000000000' and epoch = %b
returning 1;

-- name: read_limits
select tenant_id, scope, concurrency, per_second, burst, weight from agentflow.limits;

-- name: waiting_gates
-- Every gate that something waits before, with the priority of the first: one index descent for each.
with recursive gates as (
  (select tenant_id, gate, priority from agentflow.outbox
   where not admitted order by tenant_id, gate, priority desc limit 1)
  union all
  select n.tenant_id, n.gate, n.priority
  from gates g cross join lateral (
    select tenant_id, gate, priority from agentflow.outbox o
    where not o.admitted and (o.tenant_id, o.gate) > (g.tenant_id, g.gate)
    order by tenant_id, gate, priority desc limit 1
  ) n
)
select tenant_id, gate, priority from gates;

-- name: first_rows
-- The first rows that wait before each of these gates.
select f.tenant_id, f.gate, f.run_id, f.key, f.consumer, f.priority
from unnest(%b::uuid[], %b::text[]) with ordinality as g (tenant_id, gate, number)
cross join lateral (
  select o.tenant_id, o.gate, o.run_id, o.key, o.consumer, o.priority, o.created_at from agentflow.outbox o
  where not o.admitted and o.tenant_id = g.tenant_id and o.gate = g.gate
  order by o.priority desc, o.created_at limit %b
) f
order by g.number, f.priority desc, f.created_at;

-- name: in_use
-- Every admitted row that has not been consumed, and every gated run that has not ended.
select tenant_id, gate, run_id, key from agentflow.outbox where admitted;

-- name: admit
-- Admit rows under an epoch. The epoch's row stays locked until this is committed, so that a new leader counts only
-- afterwards. Rows that somebody is deleting are left to them.
with leader as (
  update agentflow.gatekeeper set seen_at = clock_timestamp()
  where tenant_id = '00000000-0000-0000-0000-000000000000' and epoch = %b
  returning 1
), chosen as (
  select o.tenant_id, o.run_id, o.key, o.consumer
  from unnest(%b::uuid[], %b::uuid[], %b::text[], %b::text[]) as c (tenant_id, run_id, key, consumer)
  join agentflow.outbox o using (tenant_id, run_id, key, consumer)
  where not o.admitted
  for update of o skip locked
)
update agentflow.outbox o
set admitted = true, due_at = clock_timestamp() + interval '3 seconds',
    tries = o.tries + (o.consumer = 'plan')::int  -- it may have been on the bus before, under the same id
from chosen c, leader
where o.tenant_id = c.tenant_id and o.run_id = c.run_id and o.key = c.key and o.consumer = c.consumer
returning o.tenant_id, o.run_id, o.key, o.consumer, o.name, o.data, o.trace, o.tries;

-- name: under_way
-- How many messages are on their way to pure functions and to calls, up to a number in all: what has been sent is due
-- to be sent again in three seconds, what waits is never due, and calls that take long are not due for long. (Compared
-- with clock_timestamp(), which differs from row to row, every row would be looked at.)
select count(*) filter (where consumer in ('plan', 'dispatch', 'account_cost')),
       count(*) filter (where consumer in ('invoke_llm', 'run_tool'))
from (select consumer from agentflow.outbox where due_at < statement_timestamp() + interval '3 seconds' limit %b) o;
