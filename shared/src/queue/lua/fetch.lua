-- Leases up to ARGV[1] jobs in fair order, after promoting what came due. Who gets fewer may offer to take another as soon as there is one,
-- who gets all to take the first of a tenant that is new then. Who wants newcomers alone gets the first job of tenants that have nothing
-- running, and what it offers is for them alone too.
-- ARGV: how many, lease in ms, token (8 bytes), promotion bound, Redis time in ms after which nobody listens (0: unknown), who is welcome ('next',
-- 'next+newcomers', 'newcomers'); for an offer also the subscription by which it is heard, and the offer's token.
-- Returns the index state, the ids in one string, the ms until there may be more (-1: unknown), the lane scores of the ids in one string, and
-- the time.
local flags, now = redis.call('HMGET', meta, 'state', 'run_id', 'paused', 'idle', 'offer'), now_ms()
local state, paused = state_in(flags[1], flags[2]), flags[3] == '1'
local wanted, lease_ms, bound = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])
local is_for_newcomers = ARGV[6] == 'newcomers'
if state == 'ready' and tonumber(ARGV[5]) > 0 and now > tonumber(ARGV[5]) then state = 'late' end
if state ~= 'ready' then return { state, '', -1, '', now } end

-- An offer is made anew twice in this time, as long as the worker polls.
local OFFERED_MS = 1000

promote(now, bound)
local leased, lane_scores, is_cut = {}, {}, false
if not paused then leased, lane_scores, is_cut = lease(wanted, lease_ms, ARGV[3], bound, now, is_for_newcomers) end
local wants_more = not is_for_newcomers and #leased < wanted
-- pcall: under a full memory these may fail, and then the fall-back poll wakes the worker.
if wants_more then redis.pcall('HSET', meta, 'idle', '1') end
-- One who is idle is the better one to take it.
local idle_offers = flags[4] == '1' and flags[5]
if ARGV[7] and (wants_more or ARGV[6] ~= 'next' and not idle_offers) then
  local offer = { ARGV[7], lease_ms, now + OFFERED_MS, is_for_newcomers and 1 or 0, ARGV[8] }
  redis.pcall('HSET', meta, 'offer', table.concat(offer, ' '))
end
-- For newcomers alone it would come to the same tenants again.
local wait = paused and -1 or is_cut and not is_for_newcomers and 0 or next_ready(now)
return { state, table.concat(leased), wait, table.concat(lane_scores, ' '), now }
