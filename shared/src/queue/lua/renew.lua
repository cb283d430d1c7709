-- Extends leases. While the index is being rebuilt ('grace') a holder may assert a lease that the new index lacks.
-- ARGV: lease in ms, then id, token, tenant and for how many ms it has been held, for each job. Returns the index state and the ids
-- whose lease is lost; of a stale index nothing can be said, so nothing is lost; of a retired one all are: the jobs are handed out
-- elsewhere.
local state, ids = index_state(), {}
for i = 2, #ARGV, 4 do ids[#ids + 1] = ARGV[i] end
if state == 'retired' then return { state, unpack(ids) } end
if state ~= 'ready' and state ~= 'grace' then return { state } end
local expiry, answer, long, names = now_ms() + tonumber(ARGV[1]), { state }, {}, {}
for at, holder in ipairs(redis.call('HMGET', held, unpack(ids))) do
  local id, token, tenant, held_ms = ids[at], ARGV[at * 4 - 1], ARGV[at * 4], tonumber(ARGV[at * 4 + 1])
  -- NX: of two who assert the same job, even in one call, the first is believed.
  if not holder and state == 'grace' and redis.call('HSETNX', held, id, token .. tenant .. '0') == 1 then
    redis.call('ZADD', leases, expiry, id)
    redis.call('HINCRBY', running, tenant, 1)
  elseif holder and string.sub(holder, 1, 8) == token then
    redis.call('ZADD', leases, 'XX', expiry, id)
    -- No weight divides by less than one.
    if held_ms > tonumber(string.sub(holder, 25)) then
      long[#long + 1] = { id = id, tenant = tenant, held_ms = held_ms, holder = holder }
      names[#names + 1] = tenant
    end
  else
    answer[#answer + 1] = id
  end
end

-- A run that goes on for longer than its estimate is charged while it lasts: its tenant's next jobs wait for the others' now, not
-- only after its end.
local more, holders = {}, {}
if #long > 0 then learn(names) end
for _, job in ipairs(long) do
  local used = job.held_ms / known[job.tenant].weight
  local beyond = used - tonumber(string.sub(job.holder, 25))
  if beyond > 0 then
    more[job.tenant] = (more[job.tenant] or 0) + beyond
    holders[#holders + 1], holders[#holders + 2] = job.id, string.sub(job.holder, 1, 24) .. used
  end
end
if #holders > 0 then redis.call('HSET', held, unpack(holders)) end
for tenant, beyond in pairs(more) do charge(tenant, beyond) end
return answer
