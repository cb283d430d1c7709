-- Claims leases that ran out, oldest first, for a rescue: from now on their holders can neither renew nor settle them, so the attempt that the
-- rescue raises in the ledger is nobody's. They stay until it settles them. ARGV: how many at most.
-- Returns id, token for each; an empty token where nobody is known to hold it.
local answer = {}
if index_state() ~= 'ready' then return answer end
local ids, claims = redis.call('ZRANGEBYSCORE', leases, '-inf', now_ms(), 'LIMIT', 0, ARGV[1]), {}
if #ids == 0 then return answer end
for at, holder in ipairs(redis.call('HMGET', held, unpack(ids))) do
  local id = ids[at]
  if #id == 16 then
    answer[#answer + 1], answer[#answer + 2] = id, holder and string.sub(holder, 1, 8) or ''
    claims[#claims + 1], claims[#claims + 2] = CLAIMED, id
  else
    redis.call('ZREM', leases, id)
  end
end
if #claims > 0 then redis.call('ZADD', leases, unpack(claims)) end
return answer
