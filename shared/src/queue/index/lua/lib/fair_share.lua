-- Needs: layout.
-- Start-time fair queueing (SFQ) with weights (Goyal, Vin, Cheng 1996): the tenant with the least
-- virtual time is served, and each start advances its virtual time by
--
--     max(run time, start cost) / weight
--
-- in ms. A start uses two resources: worker time, and dispatch with settlement (fetch, ledger,
-- retry). The tenant is charged for the one of which the start uses the larger part (dominant
-- resource, Ghodsi et al. 2011). Workers measure the start cost, see `worker/src/capacity/start_cost.rs`:
-- the time during which slots stood free while jobs waited, divided by the number of dispatched
-- jobs. A lease without a run (expired, cancelled, released) is charged for its start too.
local function virtual_cost(run_ms, start_ms, weight) return math.max(run_ms, start_ms) / weight end

-- Formats the charge that a lease records for a run of about `run_ms`.
local function format_charge(virtual, run_ms, start_ms) return (start_ms > run_ms and START_MARK or '') .. virtual end

-- Charge at the end of a run, in addition to the charge of its lease. A charged run time was an
-- estimate, which the measured time replaces. A charged start cost is the cost at that time and is
-- not refunded: many leases are out at the same time, and a refund would move the tenant back in
-- virtual time, where the other tenants would wait for it.
local function correction(run_ms, start_ms, weight, charged)
  if charged.is_start then return math.max(0, run_ms / weight - charged.virtual) end
  return virtual_cost(run_ms, start_ms, weight) - charged.virtual
end

-- Start cost in ms: as measured by this worker, and recorded for the estimates of the next fetch;
-- otherwise the recorded value.
local function start_cost(measured)
  local recorded = tonumber(redis.call('HGET', meta, 'start_ms') or 0)
  local start_ms = tonumber(measured or nil)
  if not start_ms then return recorded end
  if math.abs(start_ms - recorded) > recorded / 8 then redis.call('HSET', meta, 'start_ms', start_ms) end
  return start_ms
end

-- Moves a tenant's virtual time, wherever it is stored. A refund moves an active tenant back to the
-- system virtual time at most: other tenants have joined there, and would wait for the sum of many
-- overestimates. For an inactive tenant `activate` applies the same bound.
local function charge(tenant, virtual_ms)
  local time = redis.call('ZADD', active, 'XX', 'INCR', virtual_ms, tenant)
  if not time then
    redis.call('HINCRBYFLOAT', vtimes, tenant, virtual_ms)
  elseif virtual_ms < 0 then
    local least = redis.call('HGET', meta, 'system_vtime')
    if least and tonumber(time) < tonumber(least) then redis.call('ZADD', active, least, tenant) end
  end
end

-- Virtual time at which a tenant becomes active, if already read.
local system_vtime = nil

-- A newly active tenant starts at the system virtual time, or at its own if that is later: idleness
-- earns no credit.
local function activate(tenant)
  system_vtime = system_vtime or tonumber(redis.call('HGET', meta, 'system_vtime') or 0) or 0
  local own = tonumber(redis.call('HGET', vtimes, tenant) or 0) or 0
  redis.call('HDEL', vtimes, tenant)
  redis.call('ZADD', active, math.max(system_vtime, own), tenant)
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

-- Jobs to be stored by tenant; jobs to be stored in `due`; the tenants for which jobs were stored,
-- and whether one of them had nothing waiting.
local to_flows, to_due, stored_tenants, has_newly_active = {}, {}, {}, false

-- Adds a waiting job; the next `store_waiting` writes it to its flow or to `due`.
local function add_waiting(id, tenant, priority, run_at, now)
  if run_at > now + LOOK_AHEAD_MS then return end
  -- A time before 1970 would put the score into the range of a higher priority.
  run_at = math.max(0, run_at)
  if run_at > now then
    to_due[#to_due + 1], to_due[#to_due + 2] = whole(run_at), id .. tenant .. priority
    return
  end
  local flow = to_flows[tenant] or {}
  flow[#flow + 1], flow[#flow + 2] = whole(priority * PRIORITY_SPAN + run_at), id
  to_flows[tenant] = flow
end

-- Writes the added jobs, one command per tenant and one for all jobs due later, and activates their
-- tenants.
local function store_waiting()
  if #to_due > 0 then redis.call('ZADD', due, unpack(to_due)) end
  for tenant, flow in pairs(to_flows) do
    redis.call('ZADD', flow_of(tenant), unpack(flow))
    if not stored_tenants[tenant] then
      stored_tenants[tenant] = true
      if not redis.call('ZSCORE', active, tenant) and not redis.call('ZSCORE', throttled, tenant) then
        activate(tenant)
        has_newly_active = true
      end
    end
  end
  to_flows, to_due = {}, {}
end

-- Removes a tenant with an empty flow from the active or throttled tenants, and keeps its virtual
-- time.
local function leave_if_empty(tenant)
  if redis.call('EXISTS', flow_of(tenant)) == 1 then return end
  local time = redis.call('ZSCORE', active, tenant)
  if time then
    redis.call('ZREM', active, tenant)
    redis.call('HSET', vtimes, tenant, time)
  end
  redis.call('ZREM', throttled, tenant)
end

-- Removes a held job from its flow and from `due`. Returns whether it was in either.
local function withdraw(id, tenant)
  local from_flow = redis.call('ZREM', flow_of(tenant), id)
  local member = id .. tenant
  local from_due = redis.call('ZREM', due, member .. '1', member .. '2', member .. '3', member .. '4')
  if from_flow > 0 then leave_if_empty(tenant) end
  return from_flow + from_due > 0
end
