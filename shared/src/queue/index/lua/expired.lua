-- Needs: layout.
-- Claims expired leases for a rescue, oldest first. From then on their holders can neither renew
-- nor settle them, so no holder has the attempt that the rescue raises in the ledger. A claimed
-- lease remains until the rescue settles it.
-- KEYS[1]: root key of the shard.
-- ARGV: maximum number. Returns id and token of each; the token is empty if the holder is unknown.
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
