-- Leases a job that is being committed to whoever offers to take one, where nobody else waits, so that no turn is to be planned. Tells nobody:
-- the caller does, after the commit. Until then the job is in no lane, where it would be found before it is there.
-- Without the prelude, which would take as long as all of this: it is run while a client waits, a few milliseconds after anything else.
-- ARGV: id, tenant. Returns by which subscription the offer is heard, its token, the time, and until when the worker expects its lease to last;
-- nothing if the job is to be pushed.

-- The lease lasts so long until the worker is told: if whoever commits the job dies in between, it is rescued so soon.
local RESERVED_MS = 2000

local root, id, tenant = KEYS[1], ARGV[1], ARGV[2]
local meta, vtimes = root .. ':meta', root .. ':vtimes'
local flags = redis.call('HMGET', meta, 'idle', 'state', 'paused', 'floor', 'offer')
if flags[1] ~= '1' or flags[2] ~= 'ready' or flags[3] == '1' or not flags[5] then return nil end
if redis.call('EXISTS', root .. ':ring', root .. ':lane:' .. tenant) > 0 then return nil end
local subscription, lease_ms, until_ms = string.match(flags[5], '^(%S+) (%d+) (%d+) ')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if now > tonumber(until_ms) then return nil end
-- What is leased to somebody who is gone would wait for the end of the lease.
if redis.call('PUBSUB', 'NUMSUB', root .. ':granted:' .. subscription)[2] == 0 then return nil end
local weight, limits = 1, redis.call('HGET', root .. ':limits', tenant)
if limits then
  -- Neither cap nor rate nor pause.
  weight = tonumber(string.match(limits, '^(%S+) 0 0 %S+ 0$') or nil)
  if not weight then return nil end
end

local start = math.max(tonumber(flags[4] or 0), tonumber(redis.call('HGET', vtimes, tenant) or 0))
local cost = tonumber(redis.call('HGET', root .. ':costs', tenant) or 1) / weight
local token = string.sub(flags[5], -8)
redis.call('HDEL', meta, 'offer')
redis.call('HSET', meta, 'floor', string.format('%.17g', start))
redis.call('HSET', vtimes, tenant, start + cost)
redis.call('ZADD', root .. ':leases', now + math.min(lease_ms, RESERVED_MS), id)
redis.call('HSET', root .. ':held', id, token .. tenant .. cost)
redis.call('HINCRBY', root .. ':running', tenant, 1)
return { subscription, token, now, now + lease_ms }
