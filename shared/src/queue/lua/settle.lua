-- Ends leases, if the token still holds them, and puts back what is to run again. Serves finish, hand-back and rescue.
-- ARGV: the settlements, packed: id, token, run time in ms (-1: it did not run, give the charge back; -2: it was rescued), priority and run_at
-- in ms with which it waits again (priority 0: it does not). What a rescue has claimed is ended by a rescue alone, and by it nothing else.
-- Returns how many leases ended.
local now, ids, settlement = now_ms(), unpacker(ARGV[1], '<c8dBd')
local holders, ends = redis.call('HMGET', held, unpack(ids)), redis.call('ZMSCORE', leases, unpack(ids))
local ended, seen, tenants, names, forgotten = {}, {}, {}, {}, {}

-- Sums up, for each tenant, what was used, what was charged, and what did not run at all.
local function account(holder, ran)
  local tenant = string.sub(holder, 9, 24)
  local sum = tenants[tenant]
  if not sum then
    sum = { ended = 0, used = 0, charged = 0, unused = 0, runs = {} }
    tenants[tenant], names[#names + 1] = sum, tenant
  end
  sum.ended, sum.charged = sum.ended + 1, sum.charged + charged_to(holder)
  if ran < 0 then sum.unused = sum.unused + 1 else sum.used, sum.runs[#sum.runs + 1] = sum.used + ran, ran end
  return tenant
end

-- The virtual time was charged by an estimate; what was measured takes its place.
local function correct(tenant, sum, about)
  charge(tenant, sum.used / about.weight - sum.charged)
  about.running = math.max(0, about.running - sum.ended)
  for _, ran in ipairs(sum.runs) do
    local average = about.average or ran
    about.average, about.measured = average + 0.1 * (ran - average), true
  end
  if sum.unused > 0 and about.rate > 0 then take_tokens(tenant, about, now, -sum.unused) end
  -- Only a cap is lifted by the end of a job; a rate has its time, a pause its operator.
  return about.cap > 0 and not about.paused and redis.call('ZSCORE', parked, tenant) == 'inf' and unpark(tenant)
end

local more, again = false, {}
for at, holder in ipairs(holders) do
  local id, token, ran, priority, run_at = ids[at], settlement(at)
  local is_rescue = ran < -1
  -- The index has lost who held it. Where it waits again the crawl brings it: the ledger knows its tenant.
  if not holder and ends[at] and is_rescue == is_claimed(ends[at]) then
    forgotten[#forgotten + 1] = id
  elseif holder and not seen[id] and string.sub(holder, 1, 8) == token and is_rescue == (is_claimed(ends[at]) or false) then
    seen[id], ended[#ended + 1] = account(holder, ran), id
    if priority > 0 then
      place(id, seen[id], priority, run_at, now)
      again[id], more = true, true
    end
  end
end
if #forgotten > 0 then redis.call('ZREM', leases, unpack(forgotten)) end
if #ended == 0 then return #forgotten end
learn(names)
redis.call('ZREM', leases, unpack(ended))
redis.call('HDEL', held, unpack(ended))

local announce = announcer(now)
for _, id in ipairs(ended) do announce(id, again[id] and 'a' or 'f') end
for tenant, sum in pairs(tenants) do more = correct(tenant, sum, known[tenant]) or more end
enter_lanes()
remember(tenants)
if more then wake_idle() end
return #ended + #forgotten
