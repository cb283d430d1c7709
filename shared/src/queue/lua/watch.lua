-- Follows a job for a while: what happens to it is published. Repeating it prolongs.
-- ARGV: id, how long in ms. Returns 1.
local now, span_ms = now_ms(), tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', watched, '-inf', now)
redis.call('ZADD', watched, 'GT', now + span_ms, ARGV[1])
-- The set goes with its last follower, also when nobody comes to clear it.
redis.call('PEXPIRE', watched, math.max(span_ms, redis.call('PTTL', watched)))
return 1
