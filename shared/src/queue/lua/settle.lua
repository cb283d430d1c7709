-- Ends leases, if the token still holds them, and puts back what is to run again. Serves finish, hand-back and rescue.
-- ARGV: id, token, run time in ms (-1: it did not run, give the charge back), run_at in ms to wait again ('' if not), priority;
-- for each job. Returns how many leases ended.
local now = now_ms()
local announce = announcer(now)
local ended, waiting = 0, false
local corrections, averages = {}, {}
for i = 1, #ARGV, 5 do
  local id, ran = ARGV[i], tonumber(ARGV[i + 2])
  local holder = redis.call('HGET', held, id)
  if holder and string.sub(holder, 1, 8) == ARGV[i + 1] then
    local tenant, charged = string.sub(holder, 9, 24), tonumber(string.sub(holder, 25))
    redis.call('ZREM', leases, id)
    redis.call('HDEL', held, id)
    corrections[tenant] = (corrections[tenant] or 0) + math.max(ran, 0) - charged
    if ran >= 0 then
      local average = averages[tenant] or tonumber(redis.call('HGET', estimates, tenant) or ran)
      averages[tenant] = average + 0.1 * (ran - average)
    end
    if ARGV[i + 3] ~= '' then
      place(id, tenant, ARGV[i + 4], tonumber(ARGV[i + 3]), now)
      waiting = true
    end
    announce(id, ARGV[i + 3] == '' and 'f' or 'a')
    ended = ended + 1
  end
end
for tenant, correction in pairs(corrections) do
  if redis.call('ZSCORE', ring, tenant) then
    redis.call('ZINCRBY', ring, correction, tenant)
  else
    redis.call('HINCRBYFLOAT', vtimes, tenant, correction)
  end
end
for tenant, average in pairs(averages) do
  redis.call('HSET', estimates, tenant, math.max(average, 0.01))
end
if waiting then wake_idle() end
return ended
