-- Needs: layout.
-- Advances a rebuild: state 'ready' lets workers fetch; complete '1' records that every page of the
-- ledger has been pushed.
-- KEYS[1]: root key of the shard.
-- ARGV: epoch, field, value. Returns 1, or 0 if the epoch differs or Redis restarted since.
if redis.call('HGET', meta, 'epoch') ~= ARGV[1] or index_state() == 'stale' then return 0 end
redis.call('HSET', meta, ARGV[2], ARGV[3])
redis.call('PUBLISH', root .. ':wake', '')
return 1
