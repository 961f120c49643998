-- The relay's statements, run as agentflow_relay: it sees every tenant's outbox and timers, and nothing else.

-- name: fire_timers
-- Due timers become events in the same statement: a timer fires once, and never before its time. What is due is
-- compared with when the statement began: clock_timestamp() differs from row to row, so that every pending timer would
-- be looked at.
with due as (
  delete from agentflow.timers t
  using (
    select tenant_id, run_id, key from agentflow.timers
    where fire_at <= statement_timestamp() order by fire_at limit %b
    for update skip locked
  ) d
  where t.tenant_id = d.tenant_id and t.run_id = d.run_id and t.key = d.key
  returning t.*
)
insert into agentflow.outbox (tenant_id, run_id, key, consumer, name, data, due_at)
select tenant_id, run_id,
       -- An attempt may wait for money more than once, and each period of an account ends.
       'timer:' || key || ':' || coalesce(attempt, 0) || case when kind in ('budget', 'period')
         then ':' || (extract(epoch from statement_timestamp()) * 1000)::bigint else '' end, 'dispatch', 'timer.fired',
       json_build_object('run', run_id, 'timer', key, 'kind', kind, 'step', step, 'attempt', attempt),
       clock_timestamp() + interval '3 seconds'
from due
on conflict do nothing
returning tenant_id, run_id, key, consumer, name, data, trace, tries;

-- name: next_timer
-- Milliseconds until the next timer is due (zero or less: now); no row when there is none.
select ceil(extract(epoch from fire_at - clock_timestamp()) * 1000)::bigint from agentflow.timers order by fire_at limit 1;

-- name: resend
-- What should have been consumed by now is sent again, each time after twice as long, oldest first.
update agentflow.outbox o
set tries = o.tries + 1,
    due_at = clock_timestamp() + least(3 * 2 ^ least(o.tries + 1, 7), 300) * interval '1 second'
from (
  select tenant_id, run_id, key, consumer from agentflow.outbox
  where due_at <= statement_timestamp()
  order by due_at limit %b for update skip locked
) d
where o.tenant_id = d.tenant_id and o.run_id = d.run_id and o.key = d.key and o.consumer = d.consumer
returning o.tenant_id, o.run_id, o.key, o.consumer, o.name, o.data, o.trace, o.tries;

-- name: resend_all
-- The bus has lost everything, or nobody was there to send it: all that was made until then is sent now. What waits
-- before a gate is the gatekeeper's to send.
update agentflow.outbox
set tries = tries + 1, due_at = greatest(due_at, clock_timestamp() + interval '6 seconds')
where created_at <= %b and due_at < 'infinity'
returning tenant_id, run_id, key, consumer, name, data, trace, tries;
