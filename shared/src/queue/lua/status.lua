-- What the leader judges and operators see. ARGV: how long a worker may be silent, in ms. Returns index state, epoch, complete
-- flag, tenants that wait, jobs due in the near future, jobs leased, tenants that are parked, paused flag, and how many workers
-- and slots serve the queue.
local known = redis.call('HMGET', meta, 'epoch', 'complete', 'paused')
local count, slots = workers_seen(now_ms(), ARGV[1])
local held_off = redis.call('ZCARD', parked)
return {
  index_state(), known[1] or '0', known[2] or '0', redis.call('ZCARD', ring) + held_off, redis.call('ZCARD', due),
  redis.call('ZCARD', leases), held_off, known[3] or '0', count, slots,
}
