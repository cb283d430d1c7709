-- Needs: prelude.
-- Records that a worker serves the queue, or that it leaves.
-- ARGV: process id (16 bytes), slots, ms until a silent worker is removed (0: the worker leaves),
-- process id as text. Returns 1.
local member, span_ms = ARGV[1] .. ARGV[2], tonumber(ARGV[3])
if span_ms == 0 then
  if string.sub(redis.call('HGET', meta, 'offer') or '', 1, 32) == ARGV[4] then redis.call('HDEL', meta, 'offer') end
  return redis.call('ZREM', workers, member)
end
local now = now_ms()
redis.call('ZADD', workers, now, member)
redis.call('ZREMRANGEBYSCORE', workers, '-inf', now - span_ms)
redis.call('PEXPIRE', workers, span_ms)
return 1
