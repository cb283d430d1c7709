-- Needs: prelude.
-- Flows of waiting jobs, and the active tenants.
local entered, arrivals, due_later, somebody_new, system_vtime = {}, {}, {}, false, nil

-- A newly active tenant starts at the system virtual time, or at its own if that is later: idleness
-- earns no credit.
local function activate(tenant)
  system_vtime = system_vtime or tonumber(redis.call('HGET', meta, 'system_vtime') or 0) or 0
  local own = tonumber(redis.call('HGET', vtimes, tenant) or 0) or 0
  redis.call('HDEL', vtimes, tenant)
  redis.call('ZADD', active, math.max(system_vtime, own), tenant)
end

local function enter_active(tenant)
  if entered[tenant] then return end
  entered[tenant] = true
  if redis.call('ZSCORE', active, tenant) or redis.call('ZSCORE', throttled, tenant) then return end
  activate(tenant)
  somebody_new = true
end

-- Throttles a tenant: its jobs may not start until `ready_at`, and no fetch visits it before.
local function throttle(tenant, virtual_time, ready_at)
  redis.call('ZREM', active, tenant)
  redis.call('HSET', vtimes, tenant, virtual_time)
  redis.call('ZADD', throttled, ready_at, tenant)
end

local function unthrottle(tenant)
  if redis.call('ZREM', throttled, tenant) == 0 then return false end
  activate(tenant)
  return true
end

-- A job due later than this stays in the ledger only; the scheduler promotes it in time.
local LOOK_AHEAD_MS = 60000

-- Formats an integer for a command: `redis.call` formats a number argument with 17 digits.
local function whole(number) return string.format('%d', number) end

-- Adds a waiting job; the next `enter_flows` writes it to its flow or to `due`.
local function place(id, tenant, priority, run_at, now)
  if run_at > now + LOOK_AHEAD_MS then return end
  -- A time before 1970 would put the score into the range of a higher priority.
  run_at = math.max(0, run_at)
  if run_at > now then
    due_later[#due_later + 1], due_later[#due_later + 2] = whole(run_at), id .. tenant .. priority
    return
  end
  local flow = arrivals[tenant] or {}
  flow[#flow + 1], flow[#flow + 2] = whole(priority * PRIORITY_SPAN + run_at), id
  arrivals[tenant] = flow
end

-- Writes the placed jobs: one command per tenant, and one for all jobs due later.
local function enter_flows()
  if #due_later > 0 then redis.call('ZADD', due, unpack(due_later)) end
  for tenant, flow in pairs(arrivals) do
    redis.call('ZADD', flow_of(tenant), unpack(flow))
    enter_active(tenant)
  end
  arrivals, due_later = {}, {}
end
