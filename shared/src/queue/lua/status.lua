-- Needs: prelude, workers.
-- State of the index, for the leader and operators. ARGV: ms after which a silent worker is not
-- counted.
-- Returns index state, epoch, complete flag, tenants with waiting jobs, jobs in `due`, leased jobs,
-- throttled tenants, paused flag, workers, and slots.
local known = redis.call('HMGET', meta, 'epoch', 'complete', 'paused')
local count, slots = workers_seen(now_ms(), ARGV[1])
local held_off = redis.call('ZCARD', throttled)
return {
  index_state(), known[1] or '0', known[2] or '0', redis.call('ZCARD', active) + held_off, redis.call('ZCARD', due),
  redis.call('ZCARD', leases), held_off, known[3] or '0', count, slots,
}
