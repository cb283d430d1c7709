-- Needs: layout.
-- Records that a worker serves the queue, or that it leaves.
-- KEYS[1]: root key of the shard.
-- ARGV: process id (16 bytes), slots, ms until a silent worker is removed (0: the worker leaves),
-- process id as text. Returns 1.
local member, span_ms = ARGV[1] .. ARGV[2], tonumber(ARGV[3])
if span_ms == 0 then
  local mark = redis.call('HGET', meta, 'ready_mark') or ''
  if string.sub(mark, 1, 32) == ARGV[4] then redis.call('HDEL', meta, 'ready_mark') end
  return redis.call('ZREM', workers, member)
end
local now = now_ms()
redis.call('ZADD', workers, now, member)
redis.call('ZREMRANGEBYSCORE', workers, '-inf', now - span_ms)
redis.call('PEXPIRE', workers, span_ms)
return 1
