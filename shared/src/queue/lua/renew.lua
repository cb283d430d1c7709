-- Extends leases. While the index is being rebuilt ('grace') a holder may assert a lease that the new index lacks.
-- ARGV: lease in ms, then id, token, tenant for each job. Returns the index state and the ids whose lease is lost;
-- of a stale index nothing can be said, so nothing is lost; of a retired one all are: the jobs are handed out elsewhere.
local state, ids = index_state(), {}
for i = 2, #ARGV, 3 do ids[#ids + 1] = ARGV[i] end
if state == 'retired' then return { state, unpack(ids) } end
if state ~= 'ready' and state ~= 'grace' then return { state } end
local expiry, answer = now_ms() + tonumber(ARGV[1]), { state }
for at, holder in ipairs(redis.call('HMGET', held, unpack(ids))) do
  local id, token, tenant = ids[at], ARGV[at * 3], ARGV[at * 3 + 1]
  -- NX: of two who assert the same job, even in one call, the first is believed.
  if not holder and state == 'grace' and redis.call('HSETNX', held, id, token .. tenant .. '0') == 1 then
    redis.call('ZADD', leases, expiry, id)
    redis.call('HINCRBY', running, tenant, 1)
  elseif holder and string.sub(holder, 1, 8) == token then
    redis.call('ZADD', leases, 'XX', expiry, id)
  else
    answer[#answer + 1] = id
  end
end
return answer
