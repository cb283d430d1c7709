-- Writes a key that ends by itself and publishes a message, as all work does; returns the server's version.
-- KEYS[1]: the key, and the channel. Returns: a version such as 7.0.15; 0 before 7.0, which does not say.
redis.call('SET', KEYS[1], '1', 'PX', 10000)
redis.call('PUBLISH', KEYS[1], '')
return redis.REDIS_VERSION or '0'
