-- Needs: prelude.
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
  local from_due = redis.call('ZREM', due, id .. tenant .. '1', id .. tenant .. '2', id .. tenant .. '3', id .. tenant .. '4')
  if from_flow > 0 then leave_if_empty(tenant) end
  return from_flow + from_due > 0
end
