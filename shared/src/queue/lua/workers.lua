-- How many workers serve the queue, and with how many slots, counting those that were seen within the last `silence_ms`.
local function workers_seen(now, silence_ms)
  local members, slots = redis.call('ZRANGEBYSCORE', workers, now - silence_ms, '+inf'), 0
  for _, member in ipairs(members) do slots = slots + tonumber(string.sub(member, 17)) end
  return #members, slots
end
