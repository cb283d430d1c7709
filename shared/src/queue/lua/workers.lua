-- Needs: prelude.
-- Number of workers that serve the queue, and their slots; workers last seen before `silence_ms`
-- ago are not counted.
local function workers_seen(now, silence_ms)
  local members, slots = redis.call('ZRANGEBYSCORE', workers, now - silence_ms, '+inf'), 0
  local count = 0
  for _, member in ipairs(members) do
    local of_this = tonumber(string.sub(member, 17))
    if of_this then count, slots = count + 1, slots + of_this end
  end
  return count, slots
end
