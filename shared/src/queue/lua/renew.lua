-- Extends leases. While the index is being rebuilt ('grace') a holder may assert a lease that the new index lacks.
-- ARGV: lease in ms, then id, token, tenant for each job. Returns the index state and the ids whose lease is lost;
-- of a stale index nothing can be said, so nothing is lost.
local state = index_state()
if state ~= 'ready' and state ~= 'grace' then return { state } end
local expiry = now_ms() + tonumber(ARGV[1])
local answer = { state }
for i = 2, #ARGV, 3 do
  local id, token = ARGV[i], ARGV[i + 1]
  local holder = redis.call('HGET', held, id)
  if not holder and state == 'grace' then
    redis.call('HSET', held, id, token .. ARGV[i + 2] .. '0')
    redis.call('ZADD', leases, expiry, id)
  elseif holder and string.sub(holder, 1, 8) == token then
    redis.call('ZADD', leases, 'XX', expiry, id)
  else
    answer[#answer + 1] = id
  end
end
return answer
