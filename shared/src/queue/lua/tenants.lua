-- Needs: prelude.
-- Cached data of tenants: weight, limits, running jobs, average run time. Read once per call, many
-- tenants at a time.
local known = {}

local function unpacked(packed)
  if not packed then return { weight = 1, cap = 0, rate = 0, burst = 0, paused = false } end
  local weight, cap, rate, burst, paused = string.match(packed, '^(%S+) (%S+) (%S+) (%S+) (%S+)$')
  weight, cap, rate, burst = tonumber(weight or nil), tonumber(cap or nil), tonumber(rate or nil), tonumber(burst or nil)
  -- Unreadable limits must not affect other tenants; the leader compares limits with the ledger.
  if not (weight and weight > 0 and cap and rate and burst) then return unpacked(nil) end
  return { weight = weight, cap = cap, rate = rate, burst = burst, paused = paused == '1' }
end

local function learn(tenants)
  local packed = redis.call('HMGET', limits, unpack(tenants))
  local counts = redis.call('HMGET', running, unpack(tenants))
  local averages = redis.call('HMGET', estimates, unpack(tenants))
  for at, tenant in ipairs(tenants) do
    local about = known[tenant] or unpacked(packed[at])
    about.running, about.average = about.running or tonumber(counts[at] or 0) or 0, about.average or tonumber(averages[at] or nil)
    known[tenant] = about
  end
end

-- Writes back the running counts and averages of the given tenants.
local function remember(tenants)
  local counts, none, averages = {}, {}, {}
  for tenant in pairs(tenants) do
    local about = known[tenant]
    if about.running == 0 then none[#none + 1] = tenant
    else counts[#counts + 1], counts[#counts + 2] = tenant, about.running end
    if about.measured then averages[#averages + 1], averages[#averages + 2] = tenant, math.max(about.average, 0.01) end
  end
  if #none > 0 then redis.call('HDEL', running, unpack(none)) end
  if #counts > 0 then redis.call('HSET', running, unpack(counts)) end
  if #averages > 0 then redis.call('HSET', estimates, unpack(averages)) end
end

-- Moves a tenant's virtual time, wherever it is stored. A refund moves an active tenant back to the
-- system virtual time at most: other tenants have joined there, and would wait for the sum of many
-- overestimates. For an inactive tenant `activate` applies the same bound.
local function charge(tenant, virtual_ms)
  local time = redis.call('ZADD', active, 'XX', 'INCR', virtual_ms, tenant)
  if not time then
    redis.call('HINCRBYFLOAT', vtimes, tenant, virtual_ms)
  elseif virtual_ms < 0 then
    local least = redis.call('HGET', meta, 'system_vtime')
    if least and tonumber(time) < tonumber(least) then redis.call('ZADD', active, least, tenant) end
  end
end

-- Takes tokens from the bucket of a tenant with a rate, or returns them (negative `taken`); returns
-- the remaining tokens. An unknown bucket is full.
local function take_tokens(tenant, about, now, taken)
  if not about.tokens then
    local tokens, at = string.match(redis.call('HGET', buckets, tenant) or '', '^(%S+) (%S+)$')
    tokens, at = tonumber(tokens or nil), tonumber(at or nil)
    about.tokens = tokens and at and tokens + math.max(0, now - at) * about.rate / 1000 or about.burst
  end
  about.tokens = math.min(about.burst, about.tokens - taken)
  if taken ~= 0 then redis.call('HSET', buckets, tenant, string.format('%.6f %.0f', about.tokens, now)) end
  return about.tokens
end

-- Number of jobs that a tenant may start now; if 0, also when it may start again ('+inf': after a
-- settlement or a change of its limits).
local function allowance(tenant, about, now)
  local most = about.cap > 0 and about.cap - about.running or math.huge
  if about.paused or most <= 0 then return 0, '+inf' end
  if about.rate == 0 then return most end
  local tokens = take_tokens(tenant, about, now, 0)
  if tokens < 1 then return 0, now + math.ceil((1 - tokens) * 1000 / about.rate) end
  return math.min(most, math.floor(tokens))
end
