-- Migrations, as the database's administrator. The list of what was applied is in public: it is there before our schema.

-- name: one_at_a_time
-- One migration at a time per database; any constant will do.
select pg_advisory_lock(7305801104022006);

-- name: list
-- "system" is the server that the database lives on: after a backup was put back elsewhere it is another one.
do $$
begin
  create table if not exists public.agentflow_migrations (
    name text primary key, sha256 text not null, applied_at timestamptz not null default now());
  if 2 > (select count(*) from pg_attribute where attrelid = 'public.agentflow_migrations'::regclass
          and attname in ('contract', 'system') and not attisdropped) then
    set local lock_timeout = '5s';
    alter table public.agentflow_migrations
      add column if not exists contract boolean not null default false,
      add column if not exists system text;
  end if;
  update public.agentflow_migrations set system = s.system_identifier::text from pg_control_system() s where system is null;
end $$;

-- name: applied
select name, sha256, contract from public.agentflow_migrations;

-- name: wait_little
-- Everybody else waits behind a lock that is waited for.
set local lock_timeout = '1s';

-- name: insert
insert into public.agentflow_migrations (name, sha256, contract, system)
select %(name)s, %(sha256)s, %(contract)s, system_identifier::text from pg_control_system();

-- name: invalid_indexes
select c.relname from pg_index i join pg_class c on c.oid = i.indexrelid
where c.relnamespace = 'agentflow'::regnamespace and not i.indisvalid and c.relkind = 'i' and not c.relispartition;

-- name: oldest_transaction
select pid, usename, extract(epoch from clock_timestamp() - xact_start)::int, left(query, 80)
from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and xact_start < clock_timestamp() - interval '1 second'
order by xact_start limit 1;

-- name: show
grant select on public.agentflow_migrations to agentflow_engine, agentflow_api, agentflow_relay, agentflow_keeper;

-- name: provide
select agentflow.provide_partitions(clock_timestamp(), clock_timestamp() + interval '4 weeks');
