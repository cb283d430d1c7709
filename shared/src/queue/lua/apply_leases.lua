-- Needs: prelude, flows, tenants.
-- Executes a planned fetch.

-- Pops the planned jobs from the flows, in the order of the service rounds; returns ids, scores,
-- and entries of their tenants.
local function take_out(sequence, visited)
  local ids, scores, entries = {}, {}, {}
  for _, entry in ipairs(visited) do
    entry.popped = entry.taken > 0 and redis.call('ZPOPMIN', flow_of(entry.tenant), entry.taken) or {}
    entry.next = 1
  end
  for _, entry in ipairs(sequence) do
    local id, score = entry.popped[entry.next], entry.popped[entry.next + 1]
    entry.next = entry.next + 2
    if id then ids[#ids + 1], scores[#scores + 1], entries[#entries + 1] = id, score, entry end
  end
  return ids, scores, entries
end

-- Writes the leases; `served` maps a tenant to its number of leases.
local function enter_leases(ids, expiries, holders, served, now)
  if #ids == 0 then return end
  redis.call('ZADD', leases, unpack(expiries))
  redis.call('HSET', held, unpack(holders))
  for tenant, count in pairs(served) do
    if known[tenant].rate > 0 then take_tokens(tenant, known[tenant], now, count) end
  end
  remember(served)
  local announce = announcer(now)
  for _, id in ipairs(ids) do announce(id, 'l') end
end

-- After its service rounds, stores each tenant's new virtual time: among the active tenants, among
-- the throttled ones, or aside if its flow is empty.
local function leave(visited, now)
  local on, out, times = {}, {}, {}
  for _, entry in ipairs(visited) do
    local tenant, most, ready_at = entry.tenant, allowance(entry.tenant, entry.about, now)
    if entry.waiting <= entry.taken then
      out[#out + 1] = tenant
      times[#times + 1], times[#times + 2] = tenant, entry.time
    elseif most <= 0 then
      throttle(tenant, entry.time, ready_at)
    else
      on[#on + 1], on[#on + 2] = entry.time, tenant
    end
  end
  if #out > 0 then
    redis.call('ZREM', active, unpack(out))
    redis.call('HSET', vtimes, unpack(times))
  end
  if #on > 0 then redis.call('ZADD', active, unpack(on)) end
end
