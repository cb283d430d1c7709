-- Opens every script. KEYS[1] is the root key of a shard, or of a whole queue that is not split.
-- All names below share its hash tag, hence its slot. A charge in `held` is virtual time, after a
-- '+' if it is a start cost. Limits are stored only where they differ from the default.
-- Fields of `meta`: epoch, run_id, state, complete, system_vtime (system virtual time), idle ('1' if a
-- worker waits for a wake-up), offer (ready mark), told (time of the last 'new' notification),
-- paused, start_ms (start cost).
local root = KEYS[1]
local active = root .. ':active'     -- sorted set: active tenant -> virtual time
local throttled = root .. ':throttled' -- sorted set: throttled tenant -> ready time (inf: unknown)
local due = root .. ':due'           -- sorted set: id, tenant, priority -> run_at in the look-ahead
local leases = root .. ':leases'     -- sorted set: id -> expiry
local held = root .. ':held'         -- hash: id -> token (8 bytes), tenant (16 bytes), charge
local running = root .. ':running'   -- hash: tenant -> number of its leases
local vtimes = root .. ':vtimes'     -- hash: tenant that is not active -> virtual time
local estimates = root .. ':costs'   -- hash: tenant -> moving average of run time in ms
local limits = root .. ':limits'     -- hash: tenant -> weight, cap, rate, burst, paused
local buckets = root .. ':buckets'   -- hash: tenant with a rate -> tokens and time of their count
local watched = root .. ':watched'   -- sorted set: id of a followed job -> end of following
local workers = root .. ':workers'   -- sorted set: process and its slots -> last heartbeat
local meta = root .. ':meta'         -- hash: field -> value

-- A flow orders by priority, then by time: 2^43 ms reach to the year 2248, and 4 priorities stay
-- exact in a double.
local PRIORITY_SPAN = 8796093022208

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- 'stale' unless the index was built under the current run id of Redis: a restart, a failover or an
-- old dump changes it. 'retired' if the queue's shard count changed since.
local function state_in(state, run_id)
  if not state or run_id ~= string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') then return 'stale' end
  return state
end

local function index_state() return state_in(unpack(redis.call('HMGET', meta, 'state', 'run_id'))) end

local function flow_of(tenant) return root .. ':flow:' .. tenant end

-- One message wakes all idle workers. The flag (`idle`, if already read) prevents a busy system
-- from publishing for every push.
local function wake_idle(idle)
  if (idle or redis.call('HGET', meta, 'idle')) == '1' then
    redis.call('HSET', meta, 'idle', '0')
    redis.call('PUBLISH', root .. ':wake', '')
  end
end

-- Returns a function that publishes a change to the followers of a job. Called once per script, so
-- that without followers a script costs a single lookup.
local function announcer(now)
  if redis.call('EXISTS', watched) == 0 then return function() end end
  return function(id, happened)
    local expiry = redis.call('ZSCORE', watched, id)
    if expiry and tonumber(expiry) > now then redis.call('PUBLISH', root .. ':events', id .. happened) end
  end
end
