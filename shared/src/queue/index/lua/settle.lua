-- Needs: layout, fair_share, limits.
-- Ends leases that are still held under their token, and requeues jobs that wait again. Used by
-- finish, release and rescue.
-- KEYS[1]: root key of the shard.
-- ARGV: the settlements, packed: id, token, run time in ms (-1: no run, only the start is charged;
-- -2: rescued), priority and run_at in ms for a job that waits again (priority 0: it does not);
-- then the start cost in ms as measured by the worker ('': not measured). A lease claimed by a
-- rescue is ended only by a rescue, and a rescue ends no other.
-- Returns the number of ended leases.
local now, ids, settlement = now_ms(), unpacker(ARGV[1], '<c8dBd')
local start_ms = start_cost(ARGV[2])
local holders = redis.call('HMGET', held, unpack(ids))
local ended, seen, tenants, names, unheld = {}, {}, {}, {}, {}

-- Expiry of a lease, read only where it matters: Redis formats each score as text, which costs as
-- much as the rest of the script.
local some_claimed = redis.call('ZCOUNT', leases, '-inf', CLAIMED) > 0
local function expiry_of(id, holder) return (some_claimed or not holder) and redis.call('ZSCORE', leases, id) end

-- Parses a holder entry. All leases that one fetch made for a tenant share the same entry, which is
-- parsed once.
local parsed = {}
local function parse_holder(holder)
  parsed[holder] = parsed[holder] or {
    token = string.sub(holder, 1, 8), tenant = string.sub(holder, 9, 24),
    virtual = charged_to(holder), is_start = string.sub(holder, 25, 25) == START_MARK,
  }
  return parsed[holder]
end

local function sum_of(tenant)
  if not tenants[tenant] then
    tenants[tenant], names[#names + 1] = { runs = {}, charges = {}, unused = 0 }, tenant
  end
  return tenants[tenant]
end

-- Collects the ended leases of each tenant, and counts those without a run.
local function account(lease, ran)
  lease.sum = lease.sum or sum_of(lease.tenant)
  local sum = lease.sum
  local at = #sum.runs + 1
  sum.runs[at], sum.charges[at] = ran, lease
  if ran < 0 then sum.unused = sum.unused + 1 end
end

-- Replaces the estimated charges by the measured ones.
local function correct(tenant, sum, loaded)
  local more = 0
  for at, ran in ipairs(sum.runs) do
    more = more + correction(ran, start_ms, loaded.weight, sum.charges[at])
    if ran >= 0 then
      local average = loaded.average or ran
      loaded.average, loaded.measured = average + 0.1 * (ran - average), true
    end
  end
  charge(tenant, more)
  loaded.running = math.max(0, loaded.running - #sum.runs)
  if sum.unused > 0 and loaded.rate > 0 then take_tokens(tenant, loaded, now, -sum.unused) end
  -- The end of a job lifts only a cap; a rate limit ends at a known time, a pause by an operator.
  local lifts_cap = loaded.cap > 0 and not loaded.paused and redis.call('ZSCORE', throttled, tenant) == 'inf'
  return lifts_cap and unthrottle(tenant)
end

local more, again = false, {}
for at, holder in ipairs(holders) do
  local id, token, ran, priority, run_at = ids[at], settlement(at)
  local is_rescue, expiry = ran < -1, expiry_of(id, holder)
  -- The index has lost the holder. If the job waits again, the crawl pushes it, since the ledger
  -- knows its tenant.
  if not holder and expiry and is_rescue == is_claimed(expiry) then
    unheld[#unheld + 1] = id
  elseif holder and not seen[id] and is_rescue == (is_claimed(expiry) or false) then
    local lease = parse_holder(holder)
    if lease.token == token then
      account(lease, ran)
      seen[id], ended[#ended + 1] = true, id
      if priority > 0 then
        add_waiting(id, lease.tenant, priority, run_at, now)
        again[id], more = true, true
      end
    end
  end
end
if #unheld > 0 then redis.call('ZREM', leases, unpack(unheld)) end
if #ended == 0 then return #unheld end
load_tenants(names)
redis.call('ZREM', leases, unpack(ended))
redis.call('HDEL', held, unpack(ended))

local announce = announcer(now)
for _, id in ipairs(ended) do announce(id, again[id] and 'a' or 'f') end
for tenant, sum in pairs(tenants) do more = correct(tenant, sum, tenants_by_id[tenant]) or more end
store_waiting()
store_tenants(tenants)
if more then wake_idle() end
return #ended + #unheld
