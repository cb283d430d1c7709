-- Empties the index for a rebuild, up to ARGV[2] lanes a call, then opens the grace in which holders assert their leases.
-- ARGV: epoch, lanes a call. Returns 'refused' to a leader of an older epoch, 'more' to be called again, or 'cleared'.
local known = tonumber(redis.call('HGET', meta, 'epoch') or 0)
local epoch = tonumber(ARGV[1])
if known > epoch then return 'refused' end
if known < epoch then
  redis.call('DEL', meta)
  redis.call('HSET', meta, 'epoch', epoch, 'state', 'clearing', 'run_id', string.match(redis.call('INFO', 'server'), 'run_id:(%x+)'))
end
local popped = redis.call('ZPOPMIN', ring, ARGV[2])
for i = 1, #popped, 2 do redis.call('UNLINK', lane_of(popped[i])) end
if redis.call('EXISTS', ring) == 1 then return 'more' end
redis.call('UNLINK', due, leases, held, vtimes, estimates)
redis.call('HSET', meta, 'state', 'grace')
return 'cleared'
