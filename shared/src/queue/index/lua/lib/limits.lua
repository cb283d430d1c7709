-- Needs: layout.
-- Limits of tenants, and the counts and averages that they are compared with: read once per call,
-- many tenants at a time. Rates are token buckets.

-- The tenants read so far: weight, cap, rate, burst, paused, running jobs, average run time in ms.
local tenants_by_id = {}

local function parse_limits(packed)
  if not packed then return { weight = 1, cap = 0, rate = 0, burst = 0, paused = false } end
  local weight, cap, rate, burst, paused = string.match(packed, '^(%S+) (%S+) (%S+) (%S+) (%S+)$')
  weight, cap = tonumber(weight or nil), tonumber(cap or nil)
  rate, burst = tonumber(rate or nil), tonumber(burst or nil)
  -- Unreadable limits must not affect other tenants; the leader compares limits with the ledger.
  if not (weight and weight > 0 and cap and rate and burst) then return parse_limits(nil) end
  return { weight = weight, cap = cap, rate = rate, burst = burst, paused = paused == '1' }
end

local function load_tenants(ids)
  local packed = redis.call('HMGET', limits, unpack(ids))
  local counts = redis.call('HMGET', running, unpack(ids))
  local averages = redis.call('HMGET', estimates, unpack(ids))
  for at, id in ipairs(ids) do
    local tenant = tenants_by_id[id] or parse_limits(packed[at])
    tenant.running = tenant.running or tonumber(counts[at] or 0) or 0
    tenant.average = tenant.average or tonumber(averages[at] or nil)
    tenants_by_id[id] = tenant
  end
end

-- Writes the running counts and averages of the tenants that are keys of `ids`.
local function store_tenants(ids)
  local counts, none, averages = {}, {}, {}
  for id in pairs(ids) do
    local tenant = tenants_by_id[id]
    if tenant.running == 0 then none[#none + 1] = id
    else counts[#counts + 1], counts[#counts + 2] = id, tenant.running end
    if tenant.measured then averages[#averages + 1], averages[#averages + 2] = id, math.max(tenant.average, 0.01) end
  end
  if #none > 0 then redis.call('HDEL', running, unpack(none)) end
  if #counts > 0 then redis.call('HSET', running, unpack(counts)) end
  if #averages > 0 then redis.call('HSET', estimates, unpack(averages)) end
end

-- Takes tokens from the bucket of a tenant with a rate, or returns them (negative `taken`); returns
-- the remaining tokens. An unknown bucket is full.
local function take_tokens(id, tenant, now, taken)
  if not tenant.tokens then
    local tokens, at = string.match(redis.call('HGET', buckets, id) or '', '^(%S+) (%S+)$')
    tokens, at = tonumber(tokens or nil), tonumber(at or nil)
    tenant.tokens = tokens and at and tokens + math.max(0, now - at) * tenant.rate / 1000 or tenant.burst
  end
  tenant.tokens = math.min(tenant.burst, tenant.tokens - taken)
  if taken ~= 0 then redis.call('HSET', buckets, id, string.format('%.6f %.0f', tenant.tokens, now)) end
  return tenant.tokens
end

-- Number of jobs that a tenant may start now; if 0, also when it may start again ('+inf': after a
-- settlement or a change of its limits).
local function allowance(id, tenant, now)
  local most = tenant.cap > 0 and tenant.cap - tenant.running or math.huge
  if tenant.paused or most <= 0 then return 0, '+inf' end
  if tenant.rate == 0 then return most end
  local tokens = take_tokens(id, tenant, now, 0)
  if tokens < 1 then return 0, now + math.ceil((1 - tokens) * 1000 / tenant.rate) end
  return math.min(most, math.floor(tokens))
end
