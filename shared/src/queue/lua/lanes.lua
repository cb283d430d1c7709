-- Where waiting jobs stand, and who takes part in the ring.
local entered, arrivals, due_later, somebody_new, floor = {}, {}, {}, false, nil

-- A tenant that wakes starts at the floor, or where it stopped if that is further on: idleness earns no credit.
local function join_ring(tenant)
  floor = floor or tonumber(redis.call('HGET', meta, 'floor') or 0) or 0
  local own = tonumber(redis.call('HGET', vtimes, tenant) or 0) or 0
  redis.call('HDEL', vtimes, tenant)
  redis.call('ZADD', ring, math.max(floor, own), tenant)
end

local function enter_ring(tenant)
  if entered[tenant] then return end
  entered[tenant] = true
  if redis.call('ZSCORE', ring, tenant) or redis.call('ZSCORE', parked, tenant) then return end
  join_ring(tenant)
  somebody_new = true
end

-- Takes a tenant off the ring: it has work that may not run until `ready_at`, and nobody looks at it before.
local function park(tenant, virtual_time, ready_at)
  redis.call('ZREM', ring, tenant)
  redis.call('HSET', vtimes, tenant, virtual_time)
  redis.call('ZADD', parked, ready_at, tenant)
end

local function unpark(tenant)
  if redis.call('ZREM', parked, tenant) == 0 then return false end
  join_ring(tenant)
  return true
end

-- Later than this and a job stays in the ledger alone; the scheduler promotes it in time.
local LOOK_AHEAD_MS = 60000

-- A whole number for a command: `redis.call` writes out what is no string with 17 digits.
local function whole(number) return string.format('%d', number) end

-- Takes a waiting job in; it is in its lane, or in `due`, after the next `enter_lanes`.
local function place(id, tenant, priority, run_at, now)
  if run_at > now + LOOK_AHEAD_MS then return end
  -- Before 1970 it would reach into the next priority.
  run_at = math.max(0, run_at)
  if run_at > now then
    due_later[#due_later + 1], due_later[#due_later + 2] = whole(run_at), id .. tenant .. priority
    return
  end
  local lane = arrivals[tenant] or {}
  lane[#lane + 1], lane[#lane + 2] = whole(priority * PRIORITY_SPAN + run_at), id
  arrivals[tenant] = lane
end

-- Writes what was placed, one command for each tenant and one for all that is due later.
local function enter_lanes()
  if #due_later > 0 then redis.call('ZADD', due, unpack(due_later)) end
  for tenant, lane in pairs(arrivals) do
    redis.call('ZADD', lane_of(tenant), unpack(lane))
    enter_ring(tenant)
  end
  arrivals, due_later = {}, {}
end
