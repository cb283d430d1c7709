-- Start-time fair queueing with weights (Goyal, Vin, Cheng 1996), the one formula: the tenant with the least virtual time is served, and each
-- start moves its virtual time on by
--
--     max(run time, start cost) / weight
--
-- in ms. A start uses two resources: worker time, and dispatch with settlement (fetch, ledger, retry). It is charged for the one of which
-- it takes the larger part (dominant resource, Ghodsi et al. 2011). The start cost is measured by workers, see `worker/src/start_cost.rs`: the
-- time for which slots stood free while jobs waited, for each job that was dispatched. What was leased but did not run (expired, cancelled,
-- released) had a start too.
local function virtual_cost(run_ms, start_ms, weight) return math.max(run_ms, start_ms) / weight end

-- Stands before a charge that is a start cost, so that it still reads as a number.
local START_MARK = '+'

-- As a lease notes what it was charged for a run of about `run_ms`.
local function noted_charge(virtual, run_ms, start_ms) return (start_ms > run_ms and START_MARK or '') .. virtual end

-- What is to be charged at the end of a run beside what the lease was charged. A run time was an estimate, which what was measured replaces. A
-- start cost is what starts cost then, and stays: many leases are out at once, and as much as is given back, a tenant goes back in virtual time,
-- where the others would wait for it.
local function correction(run_ms, start_ms, weight, charged)
  if charged.is_start then return math.max(0, run_ms / weight - charged.virtual) end
  return virtual_cost(run_ms, start_ms, weight) - charged.virtual
end

-- What a start costs in ms: as this worker measured it, which is noted for the estimates of the next fetch; otherwise as it was noted.
local function start_cost(measured)
  local noted = tonumber(redis.call('HGET', meta, 'start_ms') or 0)
  local start_ms = tonumber(measured or nil)
  if not start_ms then return noted end
  if math.abs(start_ms - noted) > noted / 8 then redis.call('HSET', meta, 'start_ms', start_ms) end
  return start_ms
end
