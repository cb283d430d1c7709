-- Writes a key that expires and publishes a message, as the queue's scripts do.
-- KEYS[1]: the key and the channel. Returns the server's version, such as 7.0.15, or 0 before 7.0,
-- which does not provide it.
redis.call('SET', KEYS[1], '1', 'PX', 10000)
redis.call('PUBLISH', KEYS[1], '')
return redis.REDIS_VERSION or '0'
