-- Lists leases that ran out, oldest first, without touching them: the ledger is told before the index.
-- ARGV: how many at most. Returns id, token for each.
local answer = {}
if index_state() ~= 'ready' then return answer end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now_ms(), 'LIMIT', 0, ARGV[1])) do
  local holder = redis.call('HGET', held, id)
  if holder then
    answer[#answer + 1], answer[#answer + 2] = id, string.sub(holder, 1, 8)
  else
    redis.call('ZREM', leases, id)
  end
end
return answer
