-- Whole rows of runs, for the archive: run as agentflow_engine in a transaction that has named the one tenant.
-- A row is one line of JSON text: what a line break stands between in JSON may as well be a space. Runs come
-- in the order they are named; "offset 0" has each of them looked up by itself.

-- name: name_tenant
select set_config('app.tenants', array[%(tenant)s::uuid]::text, true);

-- name: runs
select replace(to_json(r)::text, E'\n', ' ')
from unnest(%(tenants)s::uuid[], %(runs)s::uuid[]) as k (tenant_id, run_id)
cross join lateral (
  select * from agentflow.runs r where r.tenant_id = k.tenant_id and r.run_id = k.run_id offset 0
) r;

-- name: steps
select replace(to_json(r)::text, E'\n', ' ')
from unnest(%(tenants)s::uuid[], %(borns)s::timestamptz[], %(runs)s::uuid[]) as k (tenant_id, born, run_id)
cross join lateral (
  select * from agentflow.steps s
  where s.tenant_id = k.tenant_id and s.born = k.born and s.run_id = k.run_id
    and s.born >= %(since)s and s.born < %(until)s
  order by s.step, s.attempt
  offset 0
) r;

-- name: history
select replace(to_json(r)::text, E'\n', ' ')
from unnest(%(tenants)s::uuid[], %(borns)s::timestamptz[], %(runs)s::uuid[]) as k (tenant_id, born, run_id)
cross join lateral (
  select * from agentflow.history h
  where h.tenant_id = k.tenant_id and h.born = k.born and h.run_id = k.run_id
    and h.born >= %(since)s and h.born < %(until)s
  order by h.seq
  offset 0
) r;

-- name: ledger
select replace(to_json(r)::text, E'\n', ' ')
from unnest(%(tenants)s::uuid[], %(borns)s::timestamptz[], %(runs)s::uuid[]) as k (tenant_id, born, run_id)
cross join lateral (
  select * from agentflow.ledger l
  where l.tenant_id = k.tenant_id and l.born = k.born and l.run_id = k.run_id
    and l.born >= %(since)s and l.born < %(until)s
  order by l.step, l.attempt, l.entry
  offset 0
) r;

-- name: refs
-- Blobs that these runs refer to.
select distinct u.ref
from unnest(%(tenants)s::uuid[], %(runs)s::uuid[]) as k (tenant_id, run_id)
join agentflow.blob_uses u on u.tenant_id = k.tenant_id and u.run_id = k.run_id;

-- name: blob
select content from agentflow.blobs where tenant_id = %(tenant)s and ref = %(ref)s;

-- name: refs_on_the_road
-- Blobs that a message still needs: one that waits for its consumer is sent again with a reference to its own data
-- when that is large, and a parked one holds its reference in its headers or payload.
select distinct 'blob:sha256:' || encode(sha256(convert_to(o.data::text, 'UTF8')), 'hex')
from agentflow.outbox o
where o.tenant_id = %(tenant)s and octet_length(o.data::text) > %(inline)s
union
select m.found[1]
from agentflow.parked p
cross join lateral regexp_matches(p.headers::text || ' ' || encode(p.payload, 'escape'), 'blob:sha256:[0-9a-f]{64}', 'g')
  as m (found)
where p.tenant_id = %(tenant)s;
