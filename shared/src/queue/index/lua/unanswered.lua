-- Needs: layout.
-- Finds jobs held under tokens of fetches whose responses never arrived, except leases claimed by a
-- rescue.
-- KEYS[1]: root key of the shard.
-- ARGV: cursor, then the tokens. Returns the next cursor, then id and token of each job.
local tokens, answer = {}, {}
for at = 2, #ARGV do tokens[ARGV[at]] = true end
local page = redis.call('HSCAN', held, ARGV[1], 'COUNT', 250)
answer[1] = page[1]
for at = 1, #page[2], 2 do
  local id, token = page[2][at], string.sub(page[2][at + 1], 1, 8)
  if tokens[token] and not is_claimed(redis.call('ZSCORE', leases, id)) then
    answer[#answer + 1], answer[#answer + 2] = id, token
  end
end
return answer
