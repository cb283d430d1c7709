-- Sets tenants' limits, effective on what waits already: whoever was parked gets its turn and is judged anew.
-- ARGV: for each tenant its id, its limits ('' for the default), and what they must be now ('*': whatever they are).
-- Returns how many changed.
local changed = 0
for i = 1, #ARGV, 3 do
  local tenant, packed, expected = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local current = redis.call('HGET', limits, tenant) or ''
  if current ~= packed and (expected == '*' or expected == current) then
    if packed == '' then redis.call('HDEL', limits, tenant) else redis.call('HSET', limits, tenant, packed) end
    unpark(tenant)
    changed = changed + 1
  end
end
if changed > 0 then wake_idle() end
return changed
