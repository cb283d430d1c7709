-- Takes jobs that became final out of the index and tells the holder of a running one up to which attempt it is not wanted.
-- ARGV: id, tenant, priority, attempt for each job. Returns how many were running.
local running = 0
local announce = announcer(now_ms())
for i = 1, #ARGV, 4 do
  local id, tenant = ARGV[i], ARGV[i + 1]
  if redis.call('ZREM', lane_of(tenant), id) == 1 then leave_if_empty(tenant) end
  redis.call('ZREM', due, id .. tenant .. ARGV[i + 2])
  if redis.call('HEXISTS', held, id) == 1 then
    redis.call('PUBLISH', root .. ':cancel', id .. ARGV[i + 3])
    running = running + 1
  end
  announce(id, 'c')
end
return running
