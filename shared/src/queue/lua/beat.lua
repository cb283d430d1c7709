-- Notes that a worker serves the queue, or that it no longer does. ARGV: process id (16 bytes), slots, for how many ms a silent
-- worker is remembered (0: it leaves). Returns 1.
local member, span_ms = ARGV[1] .. ARGV[2], tonumber(ARGV[3])
if span_ms == 0 then return redis.call('ZREM', workers, member) end
local now = now_ms()
redis.call('ZADD', workers, now, member)
redis.call('ZREMRANGEBYSCORE', workers, '-inf', now - span_ms)
redis.call('PEXPIRE', workers, span_ms)
return 1
