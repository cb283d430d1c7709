-- Puts waiting jobs into the index. Safe to repeat: a job that is leased stays leased, one that waits stays where it is.
-- ARGV: id, tenant, priority, run_at in ms, for each job. Returns how many were not leased already.
local flags = redis.call('HMGET', meta, 'idle', 'state')
-- The queue is split otherwise by now: nobody would ever take these out again. The ledger has them.
if flags[2] == 'retired' then return 0 end
local now, ids = now_ms(), {}
for i = 1, #ARGV, 4 do ids[#ids + 1] = ARGV[i] end
local placed = 0
for at, holder in ipairs(redis.call('HMGET', held, unpack(ids))) do
  if not holder then
    local i = at * 4 - 3
    place(ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3]), now)
    placed = placed + 1
  end
end
enter_lanes()
if placed > 0 then wake_idle(flags[1]) end
return placed
