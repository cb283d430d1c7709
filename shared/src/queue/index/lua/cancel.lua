-- Needs: layout, fair_share.
-- Removes jobs that became final from the index, and notifies the holders of running ones, with the
-- last cancelled attempt.
-- KEYS[1]: root key of the shard.
-- ARGV: id, tenant, priority, attempt per job. Returns the number of running jobs.
local running = 0
local announce = announcer(now_ms())
for i = 1, #ARGV, 4 do
  local id, tenant = ARGV[i], ARGV[i + 1]
  if redis.call('ZREM', flow_of(tenant), id) == 1 then leave_if_empty(tenant) end
  redis.call('ZREM', due, id .. tenant .. ARGV[i + 2])
  if redis.call('HEXISTS', held, id) == 1 then
    redis.call('PUBLISH', root .. ':cancel', id .. ARGV[i + 3])
    running = running + 1
  end
  announce(id, 'c')
end
return running
