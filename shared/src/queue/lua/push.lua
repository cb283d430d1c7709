-- Puts waiting jobs into the index. Safe to repeat: a job that is leased stays leased, one that waits stays where it is.
-- ARGV: id, tenant, priority, run_at in ms, for each job. Returns how many were not leased already.
local now = now_ms()
local placed = 0
for i = 1, #ARGV, 4 do
  local id = ARGV[i]
  if redis.call('HEXISTS', held, id) == 0 then
    place(id, ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3]), now)
    placed = placed + 1
  end
end
if placed > 0 then wake_idle() end
return placed
