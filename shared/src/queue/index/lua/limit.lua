-- Needs: layout, fair_share.
-- Sets tenants' limits. They apply to waiting jobs too: a throttled tenant becomes active, and the
-- next fetch evaluates it against the new limits.
-- KEYS[1]: root key of the shard.
-- ARGV: per tenant its id, its limits ('' for the default), and its expected current limits ('*':
-- any).
-- Returns the number of changed tenants.
local changed = 0
for i = 1, #ARGV, 3 do
  local tenant, packed, expected = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local current = redis.call('HGET', limits, tenant) or ''
  if current ~= packed and (expected == '*' or expected == current) then
    if packed == '' then redis.call('HDEL', limits, tenant) else redis.call('HSET', limits, tenant, packed) end
    unthrottle(tenant)
    changed = changed + 1
  end
end
if changed > 0 then wake_idle() end
return changed
