-- What the leader judges and operators see. ARGV: none. Returns index state, epoch, complete flag, tenants that wait,
-- jobs due in the near future, jobs leased.
local known = redis.call('HMGET', meta, 'epoch', 'complete')
return { index_state(), known[1] or '0', known[2] or '0', redis.call('ZCARD', ring), redis.call('ZCARD', due), redis.call('ZCARD', leases) }
