-- Needs: layout.
-- Follows a job for a while: its changes are published. Repeating the call extends the time.
-- KEYS[1]: root key of the shard.
-- ARGV: id, duration in ms. Returns 1.
local now, span_ms = now_ms(), tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', watched, '-inf', now)
redis.call('ZADD', watched, 'GT', now + span_ms, ARGV[1])
-- The set expires with its last follower, even if no later call removes expired members.
redis.call('PEXPIRE', watched, math.max(span_ms, redis.call('PTTL', watched)))
return 1
