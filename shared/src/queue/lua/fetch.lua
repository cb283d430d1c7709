-- Leases up to ARGV[1] jobs, from the tenant with the least virtual time on, after promoting what came due.
-- ARGV: how many, lease in ms, token (8 bytes), promotion bound, Redis time in ms after which nobody listens (0: unknown).
-- Returns the index state, the ids in one string, the ms until there may be more (-1: unknown), the lane score of each id,
-- and the time.
local state, now = index_state(), now_ms()
local wanted, lease_ms, token, bound = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
if state == 'ready' and tonumber(ARGV[5]) > 0 and now > tonumber(ARGV[5]) then state = 'late' end
if state ~= 'ready' then return { state, '', -1, {}, now } end

promote(now, bound)
local paused = redis.call('HGET', meta, 'paused') == '1'
local ids, scores, expiries, holders, served = {}, {}, {}, {}, {}

-- Those of the popped jobs that nobody holds.
local function lease(popped, tenant, cost)
  local members, before = {}, #ids
  for i = 1, #popped, 2 do members[#members + 1] = popped[i] end
  if #members == 0 then return 0 end
  for at, holder in ipairs(redis.call('HMGET', held, unpack(members))) do
    if not holder then
      local id = members[at]
      ids[#ids + 1], scores[#scores + 1] = id, popped[at * 2]
      expiries[#expiries + 1], expiries[#expiries + 2] = now + lease_ms, id
      holders[#holders + 1], holders[#holders + 2] = id, token .. tenant .. cost
    end
  end
  return #ids - before
end

-- One turn of the first tenant. It may start as many jobs as keep its virtual time from passing the second tenant's.
local function turn(tenant, virtual_time, second)
  if not known[tenant] then learn(redis.call('ZRANGE', ring, 0, math.min(wanted, 100) - 1)) end
  local about = known[tenant]
  local most, ready_at = allowance(tenant, about, now)
  if most <= 0 then return park(tenant, virtual_time, ready_at) end
  local cost = (about.average or 1) / about.weight
  most = math.min(most, wanted - #ids)
  if second then most = math.min(most, math.max(1, math.floor((second - virtual_time) / cost) + 1)) end
  local popped = redis.call('ZPOPMIN', lane_of(tenant), most)
  local leased = lease(popped, tenant, cost)
  if leased > 0 then
    served[tenant], about.running = true, about.running + leased
    if about.rate > 0 then take_tokens(tenant, about, now, leased) end
  end
  leave_turn(tenant, virtual_time + leased * cost, #popped < 2 * most)
end

local floor, turns = nil, 0
while not paused and #ids < wanted and turns < wanted + bound do
  local front = redis.call('ZRANGE', ring, 0, 1, 'WITHSCORES')
  if not front[1] then break end
  floor, turns = front[2], turns + 1
  turn(front[1], tonumber(front[2]), tonumber(front[4]))
end
conclude(ids, expiries, holders, served, floor, now)
-- pcall: under a full memory this flag may fail, and then the fall-back poll wakes the worker.
if #ids < wanted then redis.pcall('HSET', meta, 'idle', '1') end
local wait = paused and -1 or turns == wanted + bound and 0 or next_ready(now)
return { state, table.concat(ids), wait, scores, now }
