-- Stops a queue from handing out jobs, or lets it go on. ARGV: '1' or '0', and what the flag must be now ('*': whatever it is).
-- Returns 1 if that was a change.
local current = redis.call('HGET', meta, 'paused') or '0'
if current == ARGV[1] or (ARGV[2] ~= '*' and ARGV[2] ~= current) then return 0 end
redis.call('HSET', meta, 'paused', ARGV[1])
if ARGV[1] == '0' then wake_idle() end
return 1
