-- Needs: layout, fair_share, limits.
-- Checks one invariant of the index on one page, and repairs violations if requested. A script runs
-- alone, so a finding holds at that moment.
-- KEYS[1]: root key of the shard.
-- ARGV: check, '1' to repair, lease in ms, cursor, and for some checks ids.
-- Returns the next cursor ('0' at the end), pairs of a broken invariant and the member it concerns,
-- and pairs of id and tenant found waiting or held.
local repairs, lease_ms, cursor = ARGV[2] == '1', tonumber(ARGV[3]), ARGV[4]
local now, broken, seen, next_cursor = now_ms(), {}, {}, '0'
local PAGE = 250
-- A single call counts no more leases than this, about 10 ms of Redis time.
local MOST_COUNTED = 20000

-- Records a violation; the remaining arguments are the command that repairs it.
local function is_broken(invariant, member, ...)
  broken[#broken + 1], broken[#broken + 2] = invariant, member
  if repairs and select('#', ...) > 0 then redis.call(...) end
end

local function scan(command, key)
  local page = redis.call(command, key, cursor, 'COUNT', PAGE)
  next_cursor = page[1]
  local members = page[2]
  local at = -1
  return function()
    at = at + 2
    if members[at] then return members[at], members[at + 1] end
  end
end

local function is_waiting(id, tenant)
  if redis.call('ZSCORE', flow_of(tenant), id) then return true end
  for priority = 1, 4 do
    if redis.call('ZSCORE', due, id .. tenant .. priority) then return true end
  end
  return false
end

local checks = {}

-- A key of another type fails every script that uses it.
function checks.types()
  for key, expected in pairs({
    [active] = 'zset', [throttled] = 'zset', [due] = 'zset', [leases] = 'zset', [watched] = 'zset', [workers] = 'zset',
    [held] = 'hash', [running] = 'hash', [vtimes] = 'hash', [estimates] = 'hash', [limits] = 'hash', [buckets] = 'hash',
  }) do
    local actual = redis.call('TYPE', key).ok
    if actual ~= 'none' and actual ~= expected then is_broken('key_type', key, 'DEL', key) end
  end
end

function checks.held()
  for id, holder in scan('HSCAN', held) do
    local tenant = string.sub(holder, 9, 24)
    if #id ~= 16 or #holder < 25 or not tonumber(string.sub(holder, 25)) then
      is_broken('garbage', id, 'HDEL', held, id)
      if repairs then redis.call('ZREM', leases, id) end
    else
      seen[#seen + 1], seen[#seen + 2] = id, tenant
      -- A live holder renews the lease; a dead one lets it expire.
      if not redis.call('ZSCORE', leases, id) then
        is_broken('held_without_lease', id, 'ZADD', leases, 'NX', string.format('%.0f', now + lease_ms), id)
      end
      if is_waiting(id, tenant) then
        is_broken('in_two_places', id)
        if repairs then withdraw(id, tenant) end
      end
    end
  end
end

function checks.leases()
  for id, expiry in scan('ZSCAN', leases) do
    if #id ~= 16 then
      is_broken('garbage', id, 'ZREM', leases, id)
    elseif redis.call('HEXISTS', held, id) == 0 then
      -- A live holder asserts the lease; otherwise it expires and the job is rescued.
      is_broken('lease_without_holder', id, 'ZADD', leases, 'XX', 'LT', string.format('%.0f', now + lease_ms), id)
    elseif tonumber(expiry) > now + math.max(lease_ms, 86400000) then
      is_broken('garbage', id, 'ZADD', leases, 'XX', string.format('%.0f', now + lease_ms), id)
    end
  end
end

function checks.running()
  if redis.call('HLEN', held) > MOST_COUNTED then return end
  local counts = {}
  for _, holder in ipairs(redis.call('HVALS', held)) do
    local tenant = string.sub(holder, 9, 24)
    if #tenant == 16 then counts[tenant] = (counts[tenant] or 0) + 1 end
  end
  local recorded = redis.call('HGETALL', running)
  for at = 1, #recorded, 2 do
    local tenant, count = recorded[at], counts[recorded[at]]
    if not count then
      is_broken('running_count', tenant, 'HDEL', running, tenant)
    elseif tonumber(recorded[at + 1]) ~= count then
      is_broken('running_count', tenant, 'HSET', running, tenant, count)
    end
    counts[tenant] = nil
  end
  for tenant, count in pairs(counts) do is_broken('running_count', tenant, 'HSET', running, tenant, count) end
end

-- A flow of another type would fail every fetch.
local function has_work(tenant)
  local flow = flow_of(tenant)
  local actual = redis.call('TYPE', flow).ok
  if actual ~= 'zset' and actual ~= 'none' then is_broken('key_type', flow, 'DEL', flow) end
  return actual == 'zset'
end

local function check_active(key)
  for tenant, score in scan('ZSCAN', key) do
    if #tenant ~= 16 then
      is_broken('garbage', tenant, 'ZREM', key, tenant)
    elseif not has_work(tenant) then
      is_broken('active_without_work', tenant)
      if repairs then leave_if_empty(tenant) end
    else
      seen[#seen + 1], seen[#seen + 2] = tenant, tenant
      if key == throttled and redis.call('ZSCORE', active, tenant) then
        is_broken('in_two_places', tenant, 'ZREM', throttled, tenant)
      elseif key == active and not (tonumber(score) < math.huge) then
        is_broken('garbage', tenant, 'ZREM', active, tenant)
        if repairs then activate(tenant) end
      elseif key == throttled then
        load_tenants({ tenant })
        local most, ready_at = allowance(tenant, tenants_by_id[tenant], now)
        if most > 0 and score == 'inf' or most <= 0 and ready_at ~= '+inf' and tonumber(score) > ready_at + 1000 then
          is_broken('throttled_without_reason', tenant)
          if repairs and unthrottle(tenant) then wake_idle() end
        end
      end
    end
  end
end

function checks.active() check_active(active) end
function checks.throttled() check_active(throttled) end

function checks.due()
  for member in scan('ZSCAN', due) do
    local id, tenant, priority = string.sub(member, 1, 16), string.sub(member, 17, 32), tonumber(string.sub(member, 33))
    if #member ~= 33 or not priority or priority < 1 or priority > 4 then
      is_broken('garbage', member, 'ZREM', due, member)
    elseif redis.call('ZSCORE', flow_of(tenant), id) then
      is_broken('in_two_places', id, 'ZREM', due, member)
    else
      seen[#seen + 1], seen[#seen + 2] = id, tenant
    end
  end
end

function checks.watched()
  for id in scan('ZSCAN', watched) do
    if #id ~= 16 then is_broken('garbage', id, 'ZREM', watched, id) end
  end
end

function checks.workers()
  for member, at in scan('ZSCAN', workers) do
    if #member < 17 or not tonumber(string.sub(member, 17)) or tonumber(at) > now + 60000 then
      is_broken('garbage', member, 'ZREM', workers, member)
    end
  end
end

-- Checks the tenants in the arguments.
function checks.tenants()
  for at = 5, #ARGV do
    local tenant = ARGV[at]
    local is_known = redis.call('ZSCORE', active, tenant) or redis.call('ZSCORE', throttled, tenant)
    if has_work(tenant) and not is_known then
      is_broken('work_not_active', tenant)
      if repairs then
        activate(tenant)
        wake_idle()
      end
    end
  end
end

-- Checks the flow of the tenant in the arguments.
function checks.flow()
  local tenant = ARGV[5]
  if not has_work(tenant) then return end
  for id in scan('ZSCAN', flow_of(tenant)) do
    if #id == 16 then
      seen[#seen + 1], seen[#seen + 2] = id, tenant
    else
      is_broken('garbage', id, 'ZREM', flow_of(tenant), id)
      if repairs then leave_if_empty(tenant) end
    end
  end
end

-- Returns those jobs in the arguments (id, tenant) that are missing from the index.
function checks.jobs()
  for at = 5, #ARGV, 2 do
    local id, tenant = ARGV[at], ARGV[at + 1]
    if redis.call('HEXISTS', held, id) == 0 and not redis.call('ZSCORE', leases, id) and not is_waiting(id, tenant) then
      seen[#seen + 1], seen[#seen + 2] = id, tenant
    end
  end
end

-- Removes the jobs in the arguments (id, tenant), which do not wait in the ledger.
function checks.forget()
  for at = 5, #ARGV, 2 do withdraw(ARGV[at], ARGV[at + 1]) end
end

if index_state() ~= 'ready' then return { '0', { 'not_ready', root }, {} } end
checks[ARGV[1]]()
return { next_cursor, broken, seen }
