-- Needs: layout.
-- Empties the index for a rebuild, up to ARGV[2] flows per call, then opens the grace in which
-- holders assert their leases.
-- KEYS[1]: root key of the shard.
-- ARGV: epoch, flows per call. Returns 'refused' for an epoch older than the recorded one, 'more'
-- if another call is needed, or 'cleared'.
local recorded = tonumber(redis.call('HGET', meta, 'epoch') or 0)
local epoch = tonumber(ARGV[1])
if recorded > epoch then return 'refused' end
if recorded < epoch then
  redis.call('DEL', meta)
  local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
  redis.call('HSET', meta, 'epoch', epoch, 'state', 'clearing', 'run_id', run_id)
end
for _, tenants in ipairs({ active, throttled }) do
  local popped = redis.call('ZPOPMIN', tenants, ARGV[2])
  for i = 1, #popped, 2 do redis.call('UNLINK', flow_of(popped[i])) end
  if redis.call('EXISTS', tenants) == 1 then return 'more' end
end
redis.call('UNLINK', due, leases, held, running, vtimes, estimates, limits, buckets)
redis.call('HSET', meta, 'state', 'grace')
return 'cleared'
