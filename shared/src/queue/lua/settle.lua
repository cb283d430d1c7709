-- Ends leases, if the token still holds them, and puts back what is to run again. Serves finish, hand-back and rescue.
-- ARGV: id, token, run time in ms (-1: it did not run, give the charge back), run_at in ms to wait again ('' if not), priority;
-- for each job. Returns how many leases ended.
local now, ids = now_ms(), {}
for i = 1, #ARGV, 5 do ids[#ids + 1] = ARGV[i] end
local holders, ended, seen, tenants, names = redis.call('HMGET', held, unpack(ids)), {}, {}, {}, {}

-- Sums up, for each tenant, what was used, what was charged, and what did not run at all.
local function account(holder, ran)
  local tenant = string.sub(holder, 9, 24)
  local sum = tenants[tenant]
  if not sum then
    sum = { ended = 0, used = 0, charged = 0, unused = 0, runs = {} }
    tenants[tenant], names[#names + 1] = sum, tenant
  end
  sum.ended, sum.charged = sum.ended + 1, sum.charged + tonumber(string.sub(holder, 25))
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

for at, holder in ipairs(holders) do
  local i, id = at * 5 - 4, ids[at]
  if holder and not seen[id] and string.sub(holder, 1, 8) == ARGV[i + 1] then
    seen[id], ended[#ended + 1] = account(holder, tonumber(ARGV[i + 2])), id
  end
end
if #ended == 0 then return 0 end
learn(names)
redis.call('ZREM', leases, unpack(ended))
redis.call('HDEL', held, unpack(ended))

local announce, more = announcer(now), false
for at, id in ipairs(ids) do
  local tenant, run_at = seen[id], ARGV[at * 5 - 1]
  if tenant then
    if run_at ~= '' then place(id, tenant, ARGV[at * 5], tonumber(run_at), now) end
    more = more or run_at ~= ''
    announce(id, run_at == '' and 'f' or 'a')
  end
end
for tenant, sum in pairs(tenants) do more = correct(tenant, sum, known[tenant]) or more end
enter_lanes()
remember(tenants)
if more then wake_idle() end
return #ended
