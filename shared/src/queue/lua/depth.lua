-- Counts waiting jobs of the tenants at ring positions ARGV[1] to ARGV[2].
-- Returns tenants seen, jobs waiting, and the oldest run_at in ms among the lanes' heads ('' if none).
local tenants = redis.call('ZRANGE', ring, ARGV[1], ARGV[2])
local waiting, oldest = 0, nil
for _, tenant in ipairs(tenants) do
  local lane = lane_of(tenant)
  waiting = waiting + redis.call('ZCARD', lane)
  local head = redis.call('ZRANGE', lane, 0, 0, 'WITHSCORES')
  if head[2] then
    local run_at = tonumber(head[2]) % PRIORITY_SPAN
    if not oldest or run_at < oldest then oldest = run_at end
  end
end
return { #tenants, waiting, oldest and string.format('%.0f', oldest) or '' }
