-- Needs: layout, fair_share, leases.
-- Promotes due jobs, then leases up to ARGV[1] jobs in fair order.
-- A fetch that returns fewer jobs than requested may leave a ready mark for the next available job;
-- one that returns all of them, a ready mark for the first job of a newly active tenant. A fetch
-- for newly active tenants only leases the first job of tenants that have nothing running, and its
-- ready mark accepts only these.
-- KEYS[1]: root key of the shard.
-- ARGV: number of jobs, lease in ms, token (8 bytes), promotion bound, deadline of the caller in ms
-- of Redis time (0: unknown), tenants served ('next', 'next+newly_active', 'newly_active'); for a
-- ready mark also the name of the subscription that receives the dispatch, and the token of its
-- lease.
-- Returns the index state, the ids in one string, the ms until more jobs may be available (-1:
-- unknown), their scores in their flows in one string, and the time.
local flags, now = redis.call('HMGET', meta, 'state', 'run_id', 'paused', 'idle', 'ready_mark'), now_ms()
local state, paused = state_in(flags[1], flags[2]), flags[3] == '1'
local wanted, lease_ms, bound = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])
local is_for_newly_active = ARGV[6] == 'newly_active'
if state == 'ready' and tonumber(ARGV[5]) > 0 and now > tonumber(ARGV[5]) then state = 'late' end
if state ~= 'ready' then return { state, '', -1, '', now } end

-- A worker that polls renews its ready mark twice in this time.
local READY_MARK_MS = 1000

-- Promotes due jobs and reactivates throttled tenants that may start jobs again, up to `bound` of
-- each.
local function promote()
  local came = redis.call('ZRANGEBYSCORE', due, '-inf', now, 'WITHSCORES', 'LIMIT', 0, bound)
  local members = {}
  for i = 1, #came, 2 do
    local member, priority = came[i], tonumber(string.sub(came[i], 33))
    members[#members + 1] = member
    -- An invalid member is dropped.
    if #member == 33 and priority and priority >= 1 and priority <= 4 then
      add_waiting(string.sub(member, 1, 16), string.sub(member, 17, 32), priority, tonumber(came[i + 1]), now)
    end
  end
  if #members > 0 then redis.call('ZREM', due, unpack(members)) end
  store_waiting()
  local ready = redis.call('ZRANGEBYSCORE', throttled, '-inf', now, 'LIMIT', 0, bound)
  for _, tenant in ipairs(ready) do unthrottle(tenant) end
end

-- Milliseconds until the next job is due or the next throttled tenant may start; -1 if unknown.
local function next_ready()
  local next_at = math.huge
  for _, key in ipairs({ due, throttled }) do
    next_at = math.min(next_at, tonumber(redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2] or 'inf') or math.huge)
  end
  return next_at < math.huge and math.max(0, next_at - now) or -1
end

promote()
local leased, flow_scores, is_cut = {}, {}, false
if not paused then
  leased, flow_scores, is_cut = lease_jobs(wanted, lease_ms, ARGV[3], bound, now, is_for_newly_active)
end
local wants_more = not is_for_newly_active and #leased < wanted
-- pcall: these writes may fail under full memory, and then the worker's poll finds the job.
if wants_more then redis.pcall('HSET', meta, 'idle', '1') end
-- A busy worker never replaces an idle worker's ready mark.
local has_idle_mark = flags[4] == '1' and flags[5]
if ARGV[7] and (wants_more or ARGV[6] ~= 'next' and not has_idle_mark) then
  local mark = { ARGV[7], lease_ms, now + READY_MARK_MS, is_for_newly_active and 1 or 0, ARGV[8] }
  redis.pcall('HSET', meta, 'ready_mark', table.concat(mark, ' '))
end
-- Another fetch for newly active tenants only would visit the same tenants again.
local wait = paused and -1 or is_cut and not is_for_newly_active and 0 or next_ready()
return { state, table.concat(leased), wait, table.concat(flow_scores, ' '), now }
