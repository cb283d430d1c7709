-- Checks a request against all of its policies, and charges all of them if all admit it.
-- KEYS: one per policy, with the same hash tag.
-- ARGV: per policy its algorithm, its limit, and its window in microseconds.
-- Returns 1 if the request is admitted, otherwise 0; then per policy the requests that remained
-- before this one, and the microseconds until more of them are available again.
local SLOTS, time = 60, redis.call('TIME')
local now = time[1] * 1000000 + time[2]
-- Each returns the remaining requests, when there will be more, and a function that charges one.
local algorithms = {}
-- The number of the window and its count.
function algorithms.fixed_window(key, limit, window)
  local number = math.floor(now / window)
  local stored = redis.call('HMGET', key, 'window', 'used')
  local used = tonumber(stored[1] or nil) == number and tonumber(stored[2]) or 0
  local ends = (number + 1) * window
  return limit - used, ends, function()
    redis.call('HSET', key, 'window', number, 'used', used + 1)
    redis.call('PEXPIRE', key, math.ceil((ends - now) / 1000))
  end
end

-- Counts by slot of a 60th of the window. The oldest one, partly outside the window, is counted
-- whole, so that no window contains more than the limit.
function algorithms.sliding_window(key, limit, window)
  local length = window / SLOTS
  local slot = math.floor(now / length)
  local used, oldest, expired = 0, slot, {}
  local counts = redis.call('HGETALL', key)
  for at = 1, #counts, 2 do
    local number = tonumber(counts[at])
    if number < slot - SLOTS then expired[#expired + 1] = counts[at]
    else used, oldest = used + counts[at + 1], math.min(oldest, number) end
  end
  return limit - used, (oldest + SLOTS + 1) * length, function()
    if #expired > 0 then redis.call('HDEL', key, unpack(expired)) end
    redis.call('HINCRBY', key, slot, 1)
    redis.call('PEXPIRE', key, math.ceil((window + length) / 1000))
  end
end

-- The time at which the bucket is full (GCRA). Whole microseconds, so that sums are exact.
function algorithms.token_bucket(key, limit, window)
  local interval = math.floor(window / limit)
  local full_at = math.max(tonumber(redis.call('GET', key) or now), now)
  local empty_until = full_at - interval * limit
  local remaining = math.floor((now - empty_until) / interval)
  return remaining, empty_until + (remaining + 1) * interval, function()
    redis.call('SET', key, full_at + interval, 'PX', math.ceil((full_at + interval - now) / 1000))
  end
end

local reply, charges = { 1 }, {}
for at, key in ipairs(KEYS) do
  local limit, window = tonumber(ARGV[3 * at - 1]), tonumber(ARGV[3 * at])
  local remaining, more_at, charge = algorithms[ARGV[3 * at - 2]](key, limit, window)
  if remaining < 1 then reply[1] = 0 end
  reply[2 * at], reply[2 * at + 1], charges[at] = math.max(remaining, 0), math.ceil(more_at - now), charge
end
if reply[1] == 1 then for _, charge in ipairs(charges) do charge() end end
return reply
