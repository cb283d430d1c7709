-- Needs: prelude.
-- Start-time fair queueing (SFQ) with weights (Goyal, Vin, Cheng 1996): the tenant with the least
-- virtual time is served, and each start advances its virtual time by
--
--     max(run time, start cost) / weight
--
-- in ms. A start uses two resources: worker time, and dispatch with settlement (fetch, ledger,
-- retry). The tenant is charged for the one of which the start uses the larger part (dominant
-- resource, Ghodsi et al. 2011). Workers measure the start cost, see `worker/src/start_cost.rs`:
-- the time during which slots stood free while jobs waited, divided by the number of dispatched
-- jobs. A lease without a run (expired, cancelled, released) is charged for its start too.
local function virtual_cost(run_ms, start_ms, weight) return math.max(run_ms, start_ms) / weight end

-- Marks a charge that is a start cost; `tonumber` accepts a leading '+'.
local START_MARK = '+'

-- Formats the charge that a lease records for a run of about `run_ms`.
local function noted_charge(virtual, run_ms, start_ms) return (start_ms > run_ms and START_MARK or '') .. virtual end

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
  local noted = tonumber(redis.call('HGET', meta, 'start_ms') or 0)
  local start_ms = tonumber(measured or nil)
  if not start_ms then return noted end
  if math.abs(start_ms - noted) > noted / 8 then redis.call('HSET', meta, 'start_ms', start_ms) end
  return start_ms
end
