-- Steps that wait for an account are woken where there is headroom, for as much as they wait for. One that then takes none
-- (its run was cancelled meanwhile, or another account is short) leaves it to the others: look_again (queries.sql) has the
-- account look at them, by what is short: 0. That alone is no news: budget.restored is told as before, where there is
-- headroom for what was refused.

set local role agentflow_owner;
set local search_path = agentflow;

create or replace function restore_budget() returns trigger
language plpgsql
set search_path = agentflow, pg_temp
as $$
declare
  free bigint := new.limit_micro - new.spent_micro - new.held_micro;  -- null: no limit
  -- Null where it was looked at again while it was frozen or over its limit: what was refused is not known any more.
  refused bigint := coalesce(nullif(new.short_micro, 0), nullif(old.short_micro, 0));
  restored boolean := refused is not null and coalesce(free >= refused, true);
  remaining bigint := free;
  waiting record;
  short bigint := case when not restored then refused end;
  kept integer := 0;
begin
  for waiting in
    select t.run_id, t.key, t.needed_micro from timers t
    where t.tenant_id = new.tenant_id and t.scope = new.scope and t.period = new.period
    order by t.since, t.run_id, t.key for update skip locked
  loop
    if waiting.needed_micro <= remaining or remaining is null then
      remaining := remaining - waiting.needed_micro;
      update timers set fire_at = clock_timestamp(), scope = null
      where tenant_id = new.tenant_id and run_id = waiting.run_id and key = waiting.key;
    else
      short := least(short, waiting.needed_micro);
      kept := kept + 1;
      exit when kept = 100;
    end if;
  end loop;
  update budgets set short_micro = short
  where tenant_id = new.tenant_id and scope = new.scope and period = new.period;
  if restored then
    perform tell_budget('budget.restored', new);
  elsif remaining < free then
    perform pg_notify('agentflow_relay', '');  -- somebody was woken
  end if;
  return null;
end $$;
