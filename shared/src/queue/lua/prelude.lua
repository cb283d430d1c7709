-- Opens every script. KEYS[1] is the root key of a shard, which is the whole queue if that is not split; all names below share its hash tag, hence its slot.
local root = KEYS[1]
local ring = root .. ':ring'         -- sorted set: tenant -> virtual time, for tenants with a lane that may run
local parked = root .. ':parked'     -- sorted set: tenant -> when it may run again (inf: not by itself), for the others
local due = root .. ':due'           -- sorted set: id, tenant and priority -> run_at, for the near future
local leases = root .. ':leases'     -- sorted set: id -> expiry
local held = root .. ':held'         -- hash: id -> token (8 bytes), tenant (16 bytes), virtual time charged (with '+' before it if that is a start cost)
local running = root .. ':running'   -- hash: tenant -> how many leases it has
local vtimes = root .. ':vtimes'     -- hash: tenant -> virtual time, for tenants outside the ring
local estimates = root .. ':costs'   -- hash: tenant -> moving average of run time in ms
local limits = root .. ':limits'     -- hash: tenant -> weight, cap, rate, burst, paused; only where they differ from the default
local buckets = root .. ':buckets'   -- hash: tenant -> tokens and when they were counted, for tenants with a rate
local watched = root .. ':watched'   -- sorted set: id -> until when somebody follows the job
local workers = root .. ':workers'   -- sorted set: process and its slots -> when it was last seen
local meta = root .. ':meta'         -- hash: epoch, run_id, state, complete, floor, idle, offer, told, paused, start_ms

-- A lane orders by priority first, then by time: 2^43 ms reach to the year 2248, and 4 priorities stay exact in a double.
local PRIORITY_SPAN = 8796093022208

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- 'stale' unless the index was built in this life of Redis: after a restart, a failover or an old dump the run id differs.
-- 'retired' if the queue was split otherwise since.
local function state_in(state, run_id)
  if not state or run_id ~= string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') then return 'stale' end
  return state
end

local function index_state() return state_in(unpack(redis.call('HMGET', meta, 'state', 'run_id'))) end

local function lane_of(tenant) return root .. ':lane:' .. tenant end

-- One message wakes all idle workers; the flag (`idle`, if it was read already) keeps a busy system from publishing for every push.
local function wake_idle(idle)
  if (idle or redis.call('HGET', meta, 'idle')) == '1' then
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
