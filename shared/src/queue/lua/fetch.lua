-- Leases up to ARGV[1] jobs, from the tenant with the least virtual time on, after promoting up to ARGV[4] due ones.
-- ARGV: how many, lease in ms, token (8 bytes), promotion bound. Returns the index state, the ids in one string, the ms
-- until the next due job (-1: none known), and the lane score of each id.
local state = index_state()
if state ~= 'ready' then return { state, '', -1, {} } end
local wanted, lease_ms, token = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local now = now_ms()

for _, member in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, ARGV[4])) do
  local run_at = tonumber(redis.call('ZSCORE', due, member))
  redis.call('ZREM', due, member)
  place(string.sub(member, 1, 16), string.sub(member, 17, 32), string.sub(member, 33), run_at, now)
end

local ids, scores, expiries, holders = {}, {}, {}, {}

local function lease(id, score, tenant, cost)
  if redis.call('HEXISTS', held, id) == 1 then return false end
  ids[#ids + 1], scores[#scores + 1] = id, score
  expiries[#expiries + 1], expiries[#expiries + 2] = now + lease_ms, id
  holders[#holders + 1], holders[#holders + 2] = id, token .. tenant .. cost
  return true
end

-- How many jobs the first tenant may start before the second one's turn: its virtual time must not pass the other's.
local function turn_length(first, second, cost)
  if not second then return wanted - #ids end
  return math.min(wanted - #ids, math.max(1, math.floor((second - first) / cost) + 1))
end

while #ids < wanted do
  local front = redis.call('ZRANGE', ring, 0, 1, 'WITHSCORES')
  local tenant, vtime = front[1], tonumber(front[2])
  if not tenant then break end
  local cost = tonumber(redis.call('HGET', estimates, tenant) or 1)
  local popped = redis.call('ZPOPMIN', lane_of(tenant), turn_length(vtime, tonumber(front[4]), cost))
  local served = 0
  for i = 1, #popped, 2 do
    if lease(popped[i], popped[i + 1], tenant, cost) then served = served + 1 end
  end
  redis.call('HSET', meta, 'floor', vtime)
  if redis.call('EXISTS', lane_of(tenant)) == 1 then
    redis.call('ZADD', ring, vtime + served * cost, tenant)
  else
    redis.call('ZREM', ring, tenant)
    redis.call('HSET', vtimes, tenant, vtime + served * cost)
  end
end

if #ids > 0 then
  redis.call('ZADD', leases, unpack(expiries))
  redis.call('HSET', held, unpack(holders))
  local announce = announcer(now)
  for _, id in ipairs(ids) do announce(id, 'l') end
end
-- pcall: under a full memory this flag may fail, and then the fall-back poll wakes the worker.
if #ids < wanted then redis.pcall('HSET', meta, 'idle', '1') end
local next_due = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
return { state, table.concat(ids), next_due[2] and math.max(0, tonumber(next_due[2]) - now) or -1, scores }
