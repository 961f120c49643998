-- Periods end by themselves where somebody waits to hear of it, and everywhere at the same moment.
--
--   * An account in which something was refused has a timer for the end of its period: whoever fires it charges nothing,
--     which rolls the account and tells budget.restored. It is of no run: the nil one stands for that. Accounts that are
--     not short have none; nobody polls.
--   * A midnight that comes twice is the first one: from then on the zone's date, by which spend is added up, is the next.

set local role agentflow_owner;
set local search_path = agentflow;

create or replace function period_end(period text, zone text, at timestamptz) returns timestamptz
language sql immutable
return (
  -- PostgreSQL takes the second of two: by how much local time is past midnight just before it, the first was earlier.
  select timezone(zone, m.midnight)
         - greatest(interval '0', timezone(zone, timezone(zone, m.midnight) - interval '1 microsecond')
                                  - m.midnight + interval '1 microsecond')
  from (select case period when 'day' then date_trunc('day', timezone(zone, at)) + interval '1 day'
                           when 'month' then date_trunc('month', timezone(zone, at)) + interval '1 month' end as midnight) m);

alter table timers
  drop constraint timers_kind_check,
  add constraint timers_kind_check
    check (kind in ('retry', 'timeout', 'wait', 'wall', 'hold', 'after', 'budget', 'period'));

create function await_period() returns trigger
language plpgsql
set search_path = agentflow, pg_temp
as $$
begin
  insert into timers (tenant_id, run_id, key, kind, fire_at)
  values (new.tenant_id, '00000000-0000-0000-0000-000000000000', 'period:' || new.scope || ':' || new.period, 'period',
          new.ends_at)
  on conflict (tenant_id, run_id, key) do update set fire_at = excluded.fire_at;
  if new.ends_at < clock_timestamp() + interval '1 minute' then
    perform pg_notify('agentflow_relay', '');  -- else relays look in time by themselves
  end if;
  return null;
end $$;

create trigger await_period after update on budgets for each row
  when (new.short_micro is not null and new.ends_at is not null
        and (old.short_micro is null or old.ends_at is distinct from new.ends_at))
  execute function await_period();

-- Nobody is short any more, so nobody waits for the end. In restore_budget's own update, after the other trigger.
create function forget_period() returns trigger
language plpgsql
set search_path = agentflow, pg_temp
as $$
begin
  delete from timers
  where tenant_id = new.tenant_id and run_id = '00000000-0000-0000-0000-000000000000'
    and key = 'period:' || new.scope || ':' || new.period;
  return null;
end $$;

create trigger forget_period after update on budgets for each row
  when (old.short_micro is not null and new.short_micro is null)
  execute function forget_period();
