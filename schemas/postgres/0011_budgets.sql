-- Budgets: limits by scope and period, charged in one statement, and told of by the database itself.
--
--   * A row is one limit: of all that a tenant spends (scope tenant), of a workflow (workflow:<name>) or of a budget that
--     runs are given (budget:<name>), per day, per month or in total. Days and months are those of the tenant's zone.
--   * limit_micro is what was asked for, bound_micro what holds: lowered below what is spent and held, the bound stays
--     at that and falls as holds are released. So spent + held <= bound is true at every commit, and nothing more is
--     admitted meanwhile.
--   * A period that has ended is rolled by whoever charges next, by the database's clock: spent starts at zero, what is
--     held goes on. Whoever reads asks spent_now() what is spent by now.
--   * Steps that wait for headroom are timers that name their scope. Whatever makes headroom grow (holds that come back,
--     a limit that is raised, a period that ends) makes the timers of as many as fit due, in their order. It happens
--     under the row's lock, as does the decision to wait, so that no wake-up is lost.

set local role agentflow_owner;
set local search_path = agentflow;

-- ---------------------------------------------------------------------------------------------- time

-- timezone() raises an error for a zone that there is not.
alter table tenants add column zone text not null default 'UTC'
  check (length(zone) <= 64 and timezone(zone, timestamptz '2000-01-01') is not null);

-- When the period that "at" is in ends: the next midnight of the zone, however long the day is; null in total.
create function period_end(period text, zone text, at timestamptz) returns timestamptz
language sql immutable
return case period
  when 'day' then timezone(zone, date_trunc('day', timezone(zone, at)) + interval '1 day')
  when 'month' then timezone(zone, date_trunc('month', timezone(zone, at)) + interval '1 month') end;

-- What is spent of a period by now: nothing of one that is over.
create function spent_now(spent bigint, ends_at timestamptz, at timestamptz) returns bigint
language sql immutable
return case when ends_at <= at then 0 else spent end;

-- ---------------------------------------------------------------------------------------------- rows

alter table budgets no force row level security;  -- upon the owner, who changes all rows

alter table budgets
  drop constraint never_over,
  drop constraint budgets_pkey,
  add column period text not null default 'total' check (period in ('day', 'month', 'total')),
  add column zone text not null default 'UTC',             -- the tenant's
  add column soft_micro bigint check (soft_micro >= 0),    -- null: none; told once per period when so much is spent
  add column bound_micro bigint,
  add column ends_at timestamptz,                          -- null: never
  add column warned boolean not null default false,        -- of the soft limit, in this period
  add column short_micro bigint,                           -- the least that was refused, until so much is there again
  add constraint scoped check (scope = 'tenant' or scope ~ '^(workflow|budget):[a-z][a-z0-9_-]{0,63}$'),
  add primary key (tenant_id, scope, period);

update budgets set bound_micro = case when limit_micro is not null then greatest(limit_micro, spent_micro + held_micro) end;

alter table budgets
  add constraint never_over check (frozen or bound_micro is null or spent_micro + held_micro <= bound_micro),
  add constraint bounded check ((bound_micro is null) = (limit_micro is null) and bound_micro >= limit_micro),
  force row level security;

alter table runs add column budget text check (budget ~ '^[a-z][a-z0-9_-]{0,63}$');

-- A step that waits for headroom: of which scope, how much, since when.
alter table timers
  add column scope text,
  add column period text,
  add column needed_micro bigint,
  add column since timestamptz,
  drop constraint timers_kind_check,
  add constraint timers_kind_check check (kind in ('retry', 'timeout', 'wait', 'wall', 'hold', 'after', 'budget'));

create index timers_short on timers (tenant_id, scope, period, since) where scope is not null;

alter table ledger
  drop constraint ledger_entry_check1,  -- so named since its table's successor was made beside it
  add constraint known_entry check (entry in ('hold', 'dispatch', 'settle', 'release', 'correct'));

-- ---------------------------------------------------------------------------------------------- what follows

-- A new row, another limit or zone, a thaw: the bound and the period that follow from it.
create function fit_budget() returns trigger
language plpgsql
set search_path = agentflow, pg_temp
as $$
declare
  at timestamptz := clock_timestamp();
begin
  if tg_op = 'INSERT' then
    new.zone := coalesce((select t.zone from tenants t where t.tenant_id = new.tenant_id), 'UTC');
  end if;
  if tg_op = 'UPDATE' and old.ends_at <= at then
    new.spent_micro := 0;
    new.warned := false;
  end if;
  if tg_op = 'UPDATE' or new.ends_at is null then  -- who makes one with what its period has spent says which that is
    new.ends_at := period_end(new.period, new.zone, at);
  end if;
  new.bound_micro := case when new.limit_micro is not null
                     then greatest(new.limit_micro, new.spent_micro + new.held_micro) end;
  return new;
end $$;

create trigger fit_budget before insert on budgets for each row execute function fit_budget();
create trigger fit_changed_budget before update on budgets for each row
  when (new.limit_micro is distinct from old.limit_micro or new.zone <> old.zone or (old.frozen and not new.frozen))
  execute function fit_budget();

create function move_budgets() returns trigger
language plpgsql
set search_path = agentflow, pg_temp
as $$
begin
  update budgets set zone = new.zone where tenant_id = new.tenant_id;
  return null;
end $$;

create trigger move_budgets after update of zone on tenants for each row
  when (new.zone <> old.zone) execute function move_budgets();

-- The fact that something has come to pass with a budget, and a word to the relays that there is something to be done.
-- It is of no run: the nil one stands for that.
create function tell_budget(name text, b budgets) returns void
language sql
set search_path = agentflow, pg_temp
begin atomic
  insert into outbox (tenant_id, run_id, key, consumer, name, data, due_at)
  values (b.tenant_id, '00000000-0000-0000-0000-000000000000', name || ':' || gen_random_uuid(), 'facts', name,
          json_build_object(
            'scope', b.scope, 'period', b.period, 'limit_micro', b.limit_micro, 'soft_micro', b.soft_micro,
            'spent_micro', b.spent_micro, 'held_micro', b.held_micro,
            'remaining_micro', greatest(0, b.limit_micro - b.spent_micro - b.held_micro),
            'resets_at', to_char(timezone('UTC', b.ends_at), 'YYYY-MM-DD"T"HH24:MI:SS"Z"')),
          clock_timestamp());
  select pg_notify('agentflow_relay', '');
end;

create function warn_of_budget() returns trigger
language plpgsql
set search_path = agentflow, pg_temp
as $$
begin
  perform tell_budget('budget.warning', new);
  return null;
end $$;

create trigger warn_of_budget after update on budgets for each row
  when (new.warned and (not old.warned or new.ends_at is distinct from old.ends_at and new.zone = old.zone))
  execute function warn_of_budget();

-- There is headroom again where something was refused: say so, and have those that wait try again, as many as fit, in
-- the order in which they came. Who comes after a hundred that do not fit is not looked at until one of these does, so
-- that what it costs follows from how many go on, not from how many wait. Timers that somebody is about to fire or
-- delete are left to them.
create function restore_budget() returns trigger
language plpgsql
set search_path = agentflow, pg_temp
as $$
declare
  remaining bigint := new.limit_micro - new.spent_micro - new.held_micro;  -- null: no limit
  waiting record;
  short bigint;
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
  perform tell_budget('budget.restored', new);
  return null;
end $$;

create trigger restore_budget after update on budgets for each row
  when (new.short_micro is not null and not new.frozen and pg_trigger_depth() = 0
        and coalesce(new.limit_micro - new.spent_micro - new.held_micro >= new.short_micro, true))
  execute function restore_budget();

-- A limit that is gone keeps nobody waiting.
create function free_waiting() returns trigger
language plpgsql
set search_path = agentflow, pg_temp
as $$
begin
  update timers set fire_at = clock_timestamp(), scope = null
  where tenant_id = old.tenant_id and scope = old.scope and period = old.period;
  perform pg_notify('agentflow_relay', '');
  return null;
end $$;

create trigger free_waiting after delete on budgets for each row
  when (old.short_micro is not null) execute function free_waiting();

-- What an operator changes is noted; what is charged changes all the time, and is in the ledger.
drop trigger note_deed on budgets;
create trigger note_deed after insert or delete on budgets for each row execute function note_deed();
create trigger note_changed_budget after update on budgets for each row
  when (new.limit_micro is distinct from old.limit_micro or new.soft_micro is distinct from old.soft_micro
        or (old.frozen and not new.frozen))
  execute function note_deed();
