-- Opens every script. KEYS[1] is the queue's root key; all names below share its hash tag, hence its slot.
local root = KEYS[1]
local ring = root .. ':ring'         -- sorted set: tenant -> virtual time, for tenants with a lane
local due = root .. ':due'           -- sorted set: id, tenant and priority -> run_at, for the near future
local leases = root .. ':leases'     -- sorted set: id -> expiry
local held = root .. ':held'         -- hash: id -> token (8 bytes), tenant (16 bytes), virtual time charged
local vtimes = root .. ':vtimes'     -- hash: tenant -> virtual time, for tenants without a lane
local estimates = root .. ':costs'   -- hash: tenant -> moving average of run time in ms
local watched = root .. ':watched'   -- sorted set: id -> until when somebody follows the job
local meta = root .. ':meta'         -- hash: epoch, run_id, state, complete, floor, idle

-- A lane orders by priority first, then by time: 2^43 ms reach to the year 2248, and 4 priorities stay exact in a double.
local PRIORITY_SPAN = 8796093022208

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- 'stale' unless the index was built in this life of Redis: after a restart, a failover or an old dump the run id differs.
local function index_state()
  local known = redis.call('HMGET', meta, 'state', 'run_id')
  if not known[1] or known[2] ~= string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') then return 'stale' end
  return known[1]
end

local function lane_of(tenant) return root .. ':lane:' .. tenant end

-- A tenant that wakes starts at the floor, or where it stopped if that is further on: idleness earns no credit.
local function enter_ring(tenant)
  if redis.call('ZSCORE', ring, tenant) then return end
  local floor = tonumber(redis.call('HGET', meta, 'floor') or 0)
  local own = tonumber(redis.call('HGET', vtimes, tenant) or 0)
  redis.call('HDEL', vtimes, tenant)
  redis.call('ZADD', ring, math.max(floor, own), tenant)
end

-- Later than this and a job stays in the ledger alone; the scheduler promotes it in time.
local LOOK_AHEAD_MS = 60000

local function place(id, tenant, priority, run_at, now)
  if run_at > now + LOOK_AHEAD_MS then return end
  if run_at > now then
    redis.call('ZADD', due, run_at, id .. tenant .. priority)
  else
    redis.call('ZADD', lane_of(tenant), priority * PRIORITY_SPAN + run_at, id)
    enter_ring(tenant)
  end
end

-- One message wakes all idle workers; the flag keeps a busy system from publishing for every push.
local function wake_idle()
  if redis.call('HGET', meta, 'idle') == '1' then
    redis.call('HSET', meta, 'idle', '0')
    redis.call('PUBLISH', root .. ':wake', '')
  end
end

-- Tells those who follow a job what happened to it. To be made once a call, so that nobody's watching costs a single look.
local function announcer(now)
  if redis.call('EXISTS', watched) == 0 then return function() end end
  return function(id, happened)
    local expiry = redis.call('ZSCORE', watched, id)
    if expiry and tonumber(expiry) > now then redis.call('PUBLISH', root .. ':events', id .. happened) end
  end
end
