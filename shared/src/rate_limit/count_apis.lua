-- Notes an API, forgets those that were not noted lately, and counts the others.
-- KEYS[1]: APIs by the time they were noted.
-- ARGV: id of the API, milliseconds until it is forgotten.
-- Returns the number of APIs.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('ZCARD', KEYS[1])
