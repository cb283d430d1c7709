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
local sequence, visited, idle_turns, floor = {}, {}, 0, nil
while not paused and #sequence < wanted and idle_turns < bound do
  if horizon < math.huge and (size == 0 or heap[1].time > horizon) then
    read_page(math.min(100, wanted - #sequence + 1))
  elseif size == 0 then
    break
  else
    local first = heap[1]
    if not first.left then visited[#visited + 1] = first end
    local taken = turn(first, wanted - #sequence, now)
    if taken == 0 then
      idle_turns = idle_turns + 1
      drop_first()
    else
      for _ = 1, taken do sequence[#sequence + 1] = first end
      floor = first.time
      first.taken, first.left, first.time = first.taken + taken, first.left - taken, first.time + taken * first.cost
      if first.left == 0 then drop_first() else sift_down() end
    end
  end
end

local ids, scores, entries = take_out(sequence, visited)
local leased, lane_scores, expiries, holders, served = {}, {}, {}, {}, {}
for at, holder in ipairs(#ids > 0 and redis.call('HMGET', held, unpack(ids)) or {}) do
  local id, entry = ids[at], entries[at]
  if holder then
    entry.time = entry.time - entry.cost
  else
    leased[#leased + 1], lane_scores[#lane_scores + 1] = id, scores[at]
    expiries[#expiries + 1], expiries[#expiries + 2] = now + lease_ms, id
    holders[#holders + 1], holders[#holders + 2] = id, token .. entry.tenant .. entry.cost
    entry.about.running, served[entry.tenant] = entry.about.running + 1, (served[entry.tenant] or 0) + 1
  end
end
enter_leases(leased, expiries, holders, served, now)
leave(visited, now)
if floor then redis.call('HSET', meta, 'floor', string.format('%.17g', floor)) end
-- pcall: under a full memory this flag may fail, and then the fall-back poll wakes the worker.
if #leased < wanted then redis.pcall('HSET', meta, 'idle', '1') end
local wait = paused and -1 or idle_turns >= bound and 0 or next_ready(now)
return { state, table.concat(leased), wait, lane_scores, now }
