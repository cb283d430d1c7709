-- Removes a tenant with an empty flow from the active or throttled tenants, and keeps its virtual
-- time.
local function leave_if_empty(tenant)
  if redis.call('EXISTS', lane_of(tenant)) == 1 then return end
  local time = redis.call('ZSCORE', ring, tenant)
  if time then
    redis.call('ZREM', ring, tenant)
    redis.call('HSET', vtimes, tenant, time)
  end
  redis.call('ZREM', parked, tenant)
end

-- Removes a held job from its flow and from `due`. Returns whether it was in either.
local function withdraw(id, tenant)
  local from_lane = redis.call('ZREM', lane_of(tenant), id)
  local from_due = redis.call('ZREM', due, id .. tenant .. '1', id .. tenant .. '2', id .. tenant .. '3', id .. tenant .. '4')
  if from_lane > 0 then leave_if_empty(tenant) end
  return from_lane + from_due > 0
end
