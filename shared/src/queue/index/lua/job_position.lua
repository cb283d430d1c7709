-- Needs: layout, limits.
-- Position of one job, and the limits of its tenant.
-- KEYS[1]: root key of the shard.
-- ARGV: id, tenant, priority, ms after which a silent worker is not counted.
-- Returns index state, paused flag, position ('held', 'flow', 'due' or ''), jobs before it in its
-- flow, the tenant's packed limits, its running jobs, its tokens and average run time in ms ('' if
-- unknown), workers, slots, other active tenants, and the sum of their weights, extrapolated from
-- the first 50.
local id, tenant, now = ARGV[1], ARGV[2], now_ms()
local count, slots = workers_seen(now, ARGV[4])
local place, before = '', redis.call('ZRANK', flow_of(tenant), id)
if redis.call('HEXISTS', held, id) == 1 then place = 'held'
elseif before then place = 'flow'
elseif redis.call('ZSCORE', due, id .. tenant .. ARGV[3]) then place = 'due' end

local others, weight = {}, 0
for _, other in ipairs(redis.call('ZRANGE', active, 0, 49)) do
  if other ~= tenant then others[#others + 1] = other end
end
if #others > 0 then
  load_tenants(others)
  for _, other in ipairs(others) do weight = weight + tenants_by_id[other].weight end
end
local size = redis.call('ZCARD', active) - (redis.call('ZSCORE', active, tenant) and 1 or 0)
if #others > 0 then weight = weight * size / #others end

load_tenants({ tenant })
local loaded = tenants_by_id[tenant]
local tokens = loaded.rate > 0 and tostring(take_tokens(tenant, loaded, now, 0)) or ''
return {
  index_state(), redis.call('HGET', meta, 'paused') or '0', place, before or 0,
  redis.call('HGET', limits, tenant) or '', loaded.running, tokens,
  loaded.average and tostring(loaded.average) or '', count, slots, size, tostring(weight),
}
