-- What a fetch does before, between and after the turns of tenants.

-- Brings in what came due, and the tenants whose time has come, up to `bound` of each.
local function promote(now, bound)
  local came = redis.call('ZRANGEBYSCORE', due, '-inf', now, 'WITHSCORES', 'LIMIT', 0, bound)
  for i = 1, #came, 2 do
    local member = came[i]
    redis.call('ZREM', due, member)
    place(string.sub(member, 1, 16), string.sub(member, 17, 32), string.sub(member, 33), tonumber(came[i + 1]), now)
  end
  enter_lanes()
  for _, tenant in ipairs(redis.call('ZRANGEBYSCORE', parked, '-inf', now, 'LIMIT', 0, bound)) do unpark(tenant) end
end

-- After its turn a tenant goes on in the ring at its new virtual time, or leaves it when its lane is empty.
local function leave_turn(tenant, virtual_time, is_empty)
  if is_empty or redis.call('EXISTS', lane_of(tenant)) == 0 then
    redis.call('ZREM', ring, tenant)
    redis.call('HSET', vtimes, tenant, virtual_time)
  else
    redis.call('ZADD', ring, virtual_time, tenant)
  end
end

-- Enters the leases. `served` holds the tenants that got any, `floor` the virtual time of the last turn.
local function conclude(ids, expiries, holders, served, floor, now)
  if floor then redis.call('HSET', meta, 'floor', floor) end
  if #ids == 0 then return end
  redis.call('ZADD', leases, unpack(expiries))
  redis.call('HSET', held, unpack(holders))
  remember(served)
  local announce = announcer(now)
  for _, id in ipairs(ids) do announce(id, 'l') end
end

-- How many ms until the next job is due or the next tenant may run again; -1 if none is known.
local function next_ready(now)
  local next_at
  for _, key in ipairs({ due, parked }) do
    local at = tonumber(redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2] or nil)
    if at and at ~= math.huge and (not next_at or at < next_at) then next_at = at end
  end
  return next_at and math.max(0, next_at - now) or -1
end
