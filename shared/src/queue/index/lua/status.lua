-- Needs: layout.
-- State of the index, for the leader and operators.
-- KEYS[1]: root key of the shard.
-- ARGV: ms after which a silent worker is not counted.
-- Returns index state, epoch, complete flag, tenants with waiting jobs, jobs in `due`, leased jobs,
-- throttled tenants, paused flag, workers, and slots.
local fields = redis.call('HMGET', meta, 'epoch', 'complete', 'paused')
local count, slots = workers_seen(now_ms(), ARGV[1])
local throttled_count = redis.call('ZCARD', throttled)
return {
  index_state(), fields[1] or '0', fields[2] or '0', redis.call('ZCARD', active) + throttled_count,
  redis.call('ZCARD', due), redis.call('ZCARD', leases), throttled_count, fields[3] or '0', count, slots,
}
