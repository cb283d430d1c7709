-- Needs: prelude, flows.
-- Changes caused by time: jobs that become due, throttled tenants that may start jobs again.

-- Promotes due jobs and reactivates tenants whose time has come, up to `bound` of each.
local function promote(now, bound)
  local came = redis.call('ZRANGEBYSCORE', due, '-inf', now, 'WITHSCORES', 'LIMIT', 0, bound)
  local members = {}
  for i = 1, #came, 2 do
    local member, priority = came[i], tonumber(string.sub(came[i], 33))
    members[#members + 1] = member
    -- An invalid member is dropped.
    if #member == 33 and priority and priority >= 1 and priority <= 4 then
      place(string.sub(member, 1, 16), string.sub(member, 17, 32), priority, tonumber(came[i + 1]), now)
    end
  end
  if #members > 0 then redis.call('ZREM', due, unpack(members)) end
  enter_flows()
  for _, tenant in ipairs(redis.call('ZRANGEBYSCORE', throttled, '-inf', now, 'LIMIT', 0, bound)) do unthrottle(tenant) end
end

-- Milliseconds until the next job is due or the next throttled tenant may start; -1 if unknown.
local function next_ready(now)
  local next_at = math.huge
  for _, key in ipairs({ due, throttled }) do
    next_at = math.min(next_at, tonumber(redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2] or 'inf') or math.huge)
  end
  return next_at < math.huge and math.max(0, next_at - now) or -1
end
