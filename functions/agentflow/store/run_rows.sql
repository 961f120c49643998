-- Whole rows of runs, for the archive: run as agentflow_engine in a transaction that has named the one tenant.
-- A row is one line of JSON text: what a line break stands between in JSON may as well be a space.

-- name: name_tenant
select set_config('app.tenants', array[%(tenant)s::uuid]::text, true);

-- name: runs
select replace(to_json(r)::text, E'\n', ' ')
from unnest(%(runs)s::uuid[]) as k (run_id)
join agentflow.runs r on r.tenant_id = %(tenant)s and r.run_id = k.run_id
order by r.created_at, r.run_id;

-- name: steps
select replace(to_json(s)::text, E'\n', ' ')
from unnest(%(borns)s::timestamptz[], %(runs)s::uuid[]) as k (born, run_id)
join agentflow.steps s on s.tenant_id = %(tenant)s and s.born = k.born and s.run_id = k.run_id
where s.born >= %(since)s and s.born < %(until)s
order by s.born, s.run_id, s.step, s.attempt;

-- name: history
select replace(to_json(h)::text, E'\n', ' ')
from unnest(%(borns)s::timestamptz[], %(runs)s::uuid[]) as k (born, run_id)
join agentflow.history h on h.tenant_id = %(tenant)s and h.born = k.born and h.run_id = k.run_id
where h.born >= %(since)s and h.born < %(until)s
order by h.born, h.run_id, h.seq;

-- name: ledger
select replace(to_json(l)::text, E'\n', ' ')
from unnest(%(borns)s::timestamptz[], %(runs)s::uuid[]) as k (born, run_id)
join agentflow.ledger l on l.tenant_id = %(tenant)s and l.born = k.born and l.run_id = k.run_id
where l.born >= %(since)s and l.born < %(until)s
order by l.born, l.run_id, l.step, l.attempt, l.entry;

-- name: refs
-- Blobs that these runs refer to.
select distinct u.ref
from unnest(%(runs)s::uuid[]) as k (run_id)
join agentflow.blob_uses u on u.tenant_id = %(tenant)s and u.run_id = k.run_id;

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
