-- Needs: layout.
-- Pauses or resumes a queue.
-- KEYS[1]: root key of the shard.
-- ARGV: '1' or '0', and the expected current flag ('*': any).
-- Returns 1 if the flag changed.
local current = redis.call('HGET', meta, 'paused') or '0'
if current == ARGV[1] or (ARGV[2] ~= '*' and ARGV[2] ~= current) then return 0 end
redis.call('HSET', meta, 'paused', ARGV[1])
if ARGV[1] == '0' then wake_idle() end
return 1
