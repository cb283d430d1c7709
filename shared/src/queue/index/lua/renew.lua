-- Needs: layout, fair_share, limits.
-- Extends leases.
-- KEYS[1]: root key of the shard.
-- ARGV: lease in ms, '1' to assert leases without a holder, then per job id, token, tenant, and run
-- time so far in ms.
-- Returns the index state, the number of lost ids, these ids, and then the ids without a holder.
-- Lost: held under another token, claimed by a rescue, or any lease of a retired index; those jobs
-- are leased elsewhere. Without a holder: settled, rescued or lost by the index. The ledger decides
-- which, so the caller reads it before it asserts; while the index is being rebuilt ('grace'),
-- leases are asserted at once. A stale index reports no lease as lost.
local state, ids = index_state(), {}
for i = 3, #ARGV, 4 do ids[#ids + 1] = ARGV[i] end
if state == 'retired' then return { state, #ids, unpack(ids) } end
if state ~= 'ready' and state ~= 'grace' then return { state, 0 } end
local now = now_ms()
local expiry, asserts = string.format('%.0f', now + tonumber(ARGV[1])), ARGV[2] == '1' or state == 'grace'
local lost, unheld, long, names, expiries, found = {}, {}, {}, {}, {}, {}
local ends = redis.call('ZMSCORE', leases, unpack(ids))

-- NX: if two holders assert the same job, even in one call, the first one gets the lease.
local function assert_lease(id, token, tenant)
  if redis.call('HSETNX', held, id, token .. tenant .. '0') == 0 then return false end
  withdraw(id, tenant)
  redis.call('HINCRBY', running, tenant, 1)
  return true
end

for at, holder in ipairs(redis.call('HMGET', held, unpack(ids))) do
  local id, token, tenant, held_ms = ids[at], ARGV[at * 4], ARGV[at * 4 + 1], tonumber(ARGV[at * 4 + 2])
  if is_claimed(ends[at]) then
    lost[#lost + 1] = id
  elseif not holder and not asserts then
    unheld[#unheld + 1] = id
  elseif not holder and assert_lease(id, token, tenant) then
    expiries[#expiries + 1], expiries[#expiries + 2] = expiry, id
  elseif holder and string.sub(holder, 1, 8) == token then
    expiries[#expiries + 1], expiries[#expiries + 2] = expiry, id
    -- Weights are at least 1: a shorter run has no excess charge, and its tenant's weight need not
    -- be read.
    if held_ms > charged_to(holder) then
      long[#long + 1] = { id = id, tenant = tenant, held_ms = held_ms, holder = holder }
      names[#names + 1] = tenant
    end
  else
    lost[#lost + 1] = id
  end
end
-- This also restores a missing expiry: the holder's entry proves that the lease exists.
if #expiries > 0 then redis.call('ZADD', leases, unpack(expiries)) end

-- A run beyond its estimate is charged while it lasts, so that the tenant's next jobs wait for
-- other tenants now, not only after its end.
local more, holders = {}, {}
if #long > 0 then load_tenants(names) end
for _, job in ipairs(long) do
  local used = job.held_ms / tenants_by_id[job.tenant].weight
  local beyond = used - charged_to(job.holder)
  if beyond > 0 then
    more[job.tenant] = (more[job.tenant] or 0) + beyond
    holders[#holders + 1], holders[#holders + 2] = job.id, string.sub(job.holder, 1, 24) .. used
  end
end
if #holders > 0 then redis.call('HSET', held, unpack(holders)) end
for tenant, beyond in pairs(more) do charge(tenant, beyond) end
local answer = { state, #lost }
for _, id in ipairs(lost) do answer[#answer + 1] = id end
for _, id in ipairs(unheld) do answer[#answer + 1] = id end
return answer
