-- Puts waiting jobs into the index. Safe to repeat: a job that is leased stays leased, one that waits stays where it is.
-- ARGV: the jobs, packed: id, tenant, priority, run_at in ms (-inf: now). Returns how many were not leased already.
local flags = redis.call('HMGET', meta, 'idle', 'state', 'told', 'offer', 'paused', 'floor')
-- The queue is split otherwise by now: nobody would ever take these out again. The ledger has them.
if flags[2] == 'retired' then return 0 end
floor = tonumber(flags[6] or 0) or 0
local now, ids, job = now_ms(), unpacker(ARGV[1], '<c16Bd')
local placed, last, put_off = 0, nil, {}
-- What was put off is due later than the ledger says, and the sweeps must not bring it forward.
if redis.call('EXISTS', due) == 1 then
  local members = {}
  for at, id in ipairs(ids) do
    local tenant, priority = job(at)
    members[at] = id .. tenant .. priority
  end
  put_off = redis.call('ZMSCORE', due, unpack(members))
end
-- What waits in its lane and is said to be due later, by a push that was under way for long, is left to the ledger, which is asked when its
-- turn comes.
local function waits_elsewhere(at, tenant, run_at)
  return put_off[at] or run_at > now and redis.call('ZSCORE', lane_of(tenant), ids[at])
end
for at, holder in ipairs(redis.call('HMGET', held, unpack(ids))) do
  local id, tenant, priority, run_at = ids[at], job(at)
  if not holder and not waits_elsewhere(at, tenant, run_at) then
    place(id, tenant, priority, run_at == -math.huge and now or run_at, now)
    placed, last = placed + 1, id
  end
end
enter_lanes()

-- Busy workers are told now and then, of a tenant that had nothing waiting, and have its job beside their rounds.
local is_idle = flags[1] == '1'
local is_for_newcomer = not is_idle and somebody_new and now - (tonumber(flags[3]) or 0) >= 5
if is_for_newcomer then redis.call('HSET', meta, 'told', now) end
-- Nothing of it is in a lane if all of it is due later; the workers are to learn when.
-- An offer to newcomers alone is for whoever had something waiting but has nothing running, too: nobody else would come to look.
local offer, granted = read_offer(flags[4]), nil
local is_wanted = is_idle or is_for_newcomer or offer and offer.is_for_newcomers
if offer and is_wanted and next(entered) and flags[5] ~= '1' and flags[2] == 'ready' then granted = grant(offer, now) end
if placed > 0 and not (placed == 1 and granted == last) then
  wake_idle(flags[1])
  if is_for_newcomer then redis.call('PUBLISH', root .. ':wake', 'new') end
end
return placed
