-- Sealing (run as agentflow_relay) and verifying (run as agentflow_engine, in a transaction that has named the one
-- tenant). What is sealed, and why, is in schemas/postgres/0006_audit.sql.

-- name: lead
-- One at a time seals, so that notes are sealed in their order; the lock goes with the transaction.
select pg_try_advisory_xact_lock(7305801104022010), floor(extract(epoch from clock_timestamp()) * 1000)::bigint;

-- name: take_notes
-- The next notes of whoever comes first, as entries: runs together, where the first of them stands, and deeds one by one.
with taken as materialized (
  delete from agentflow.unsealed u
  using (select tenant_id, note from agentflow.unsealed order by tenant_id, note limit %s) t
  where u.tenant_id = t.tenant_id and u.note = t.note
  returning u.*
)
select tenant_id, min(note) as place, 'runs' as kind,
       json_build_object('runs', json_agg(json_build_array(run_id, rev, encode(link, 'hex')) order by note))::text as data
from taken where kind = 'run' group by tenant_id
union all
select tenant_id, note, kind, (jsonb_build_object('noted_at', at) || coalesce(data::jsonb, '{}'))::text
from taken where kind <> 'run'
order by tenant_id, place;

-- name: read_heads
select tenant_id, n, chain from agentflow.audit_heads where tenant_id = any(%s::uuid[]) order by tenant_id for update;

-- name: insert_entries
insert into agentflow.audit (tenant_id, n, at, kind, data, digest, link)
select c.tenant_id, c.n, to_timestamp(%s::bigint / 1000.0), c.kind, c.data, c.digest, c.link
from unnest(%s::uuid[], %s::int[], %s::text[], %s::text[], %s::bytea[], %s::bytea[])
  as c (tenant_id, n, kind, data, digest, link);

-- name: write_heads
insert into agentflow.audit_heads (tenant_id, n, chain)
select * from unnest(%s::uuid[], %s::int[], %s::bytea[])
on conflict (tenant_id) do update set n = excluded.n, chain = excluded.chain;

-- name: name_tenant
select set_config('app.tenants', array[%s::uuid]::text, true);

-- name: read_head
select n, chain from agentflow.audit_heads where tenant_id = %s;

-- name: read_entries
select n, (extract(epoch from at) * 1000)::bigint, kind, data, digest, link from agentflow.audit
where tenant_id = %s and n > %s order by n limit 20;

-- name: read_notes
select kind, run_id, data::text from agentflow.unsealed where tenant_id = %s order by note;

-- name: read_runs
select r.run_id, r.created_at, (extract(epoch from r.created_at) * 1000)::bigint, r.workflow, r.status, r.seq,
       r.spent_micro, r.held_micro, r.input::text, r.output::text, r.error::text, r.request_hash, r.rev, r.chain
from unnest(%s::uuid[], %s::uuid[]) as k (tenant_id, run_id)
join agentflow.runs r using (tenant_id, run_id);

-- name: read_rows
-- All that runs have left behind, in the order in which it was written: numbers, texts and JSON as they are folded.
select r.*
from unnest(%(tenants)s::uuid[], %(borns)s::timestamptz[], %(runs)s::uuid[]) as k (tenant_id, born, run_id)
cross join lateral (
  select s.run_id, s.rev, 'step' as kind, s.completed_at as at,
         array[s.step, s.attempt, s.epoch, (extract(epoch from s.requested_at) * 1000)::bigint, s.held_micro,
               s.cost_micro] as numbers,
         array[s.task, s.kind, s.status] as texts, s.output::text as one, s.error::text as two, s.usage::text as three,
         null::bytea as hash, null::bytea as link
  from agentflow.steps s where s.tenant_id = k.tenant_id and s.born = k.born and s.run_id = k.run_id
  union all
  select h.run_id, h.rev, 'line', h.at, array[h.seq]::bigint[], array[h.name], h.data::text, null, null, h.hash, h.link
  from agentflow.history h where h.tenant_id = k.tenant_id and h.born = k.born and h.run_id = k.run_id
  union all
  select l.run_id, l.rev, 'entry', l.at, array[l.step, l.attempt, l.amount_micro, l.held_micro], array[l.entry, l.price],
         l.usage::text, null, null, null, null
  from agentflow.ledger l where l.tenant_id = k.tenant_id and l.born = k.born and l.run_id = k.run_id
  order by rev nulls first
  offset 0
) r;

-- name: read_workflows
select name, version, hash, document::text from agentflow.workflows where tenant_id = %s order by name, version;

-- name: read_corrections
select key, (to_jsonb(c) - 'made_at')::text from agentflow.corrections c where tenant_id = %s order by key;

-- name: read_chainless
-- Runs without a chain, and whether they began when there were chains already.
select run_id, created_at >= (select min(at) from agentflow.audit where tenant_id = %(tenant)s) as strange
from agentflow.runs where tenant_id = %(tenant)s and chain is null;

-- name: read_tenants
select tenant_id from agentflow.tenants order by tenant_id;
