-- Needs: layout.
-- Counts waiting jobs of the active or throttled tenants at ranks ARGV[2] to ARGV[3].
-- KEYS[1]: root key of the shard.
-- ARGV: 'active' or 'throttled', first rank, last rank. Returns the number of
-- tenants, the number of waiting jobs, and the earliest run_at in ms at the heads of their flows
-- ('' if none).
local tenants = redis.call('ZRANGE', ARGV[1] == 'active' and active or throttled, ARGV[2], ARGV[3])
local waiting, oldest = 0, nil
for _, tenant in ipairs(tenants) do
  local flow = flow_of(tenant)
  waiting = waiting + redis.call('ZCARD', flow)
  local head = redis.call('ZRANGE', flow, 0, 0, 'WITHSCORES')
  if head[2] then
    local run_at = tonumber(head[2]) % PRIORITY_SPAN
    if not oldest or run_at < oldest then oldest = run_at end
  end
end
return { #tenants, waiting, oldest and string.format('%.0f', oldest) or '' }
