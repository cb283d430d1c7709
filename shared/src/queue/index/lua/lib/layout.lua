-- Needs: nothing.
-- Keys and formats of the index, and its state, clock and notifications. Opens every script.
-- KEYS[1] is the root key of a shard, or of a whole queue that is not split. All names below share
-- its hash tag, hence its slot. Limits are stored only where they differ from the default.
-- Fields of `meta`: epoch, run_id, state, complete, system_vtime (system virtual time), idle ('1'
-- if a worker waits for a wake-up), ready_mark (of the worker for the next direct dispatch),
-- newly_active_at (time of the last 'new' notification), paused, start_ms (start cost).
local root = KEYS[1]
local active = root .. ':active'     -- sorted set: active tenant -> virtual time
local throttled = root .. ':throttled' -- sorted set: throttled tenant -> ready time (inf: unknown)
local due = root .. ':due'           -- sorted set: id, tenant, priority -> run_at in the look-ahead
local leases = root .. ':leases'     -- sorted set: id -> expiry, or CLAIMED
local held = root .. ':held'         -- hash: id -> token (8 bytes), tenant (16 bytes), charge
local running = root .. ':running'   -- hash: tenant -> number of its leases
local vtimes = root .. ':vtimes'     -- hash: tenant that is not active -> virtual time
local estimates = root .. ':costs'   -- hash: tenant -> moving average of run time in ms
local limits = root .. ':limits'     -- hash: tenant -> weight, cap, rate, burst, paused
local buckets = root .. ':buckets'   -- hash: tenant with a rate -> tokens and time of their count
local watched = root .. ':watched'   -- sorted set: id of a followed job -> end of following
local workers = root .. ':workers'   -- sorted set: process and its slots -> last heartbeat
local meta = root .. ':meta'         -- hash: field -> value

-- Sorted set: id of a waiting job -> its order in the tenant's flow.
local function flow_of(tenant) return root .. ':flow:' .. tenant end

-- A flow orders by priority, then by time: 2^43 ms reach to the year 2248, and 4 priorities stay
-- exact in a double.
local PRIORITY_SPAN = 8796093022208

-- Score of a lease that a rescue has claimed.
local CLAIMED = 0

local function is_claimed(expiry) return expiry and tonumber(expiry) <= CLAIMED end

-- Opens a charge in `held` that is a start cost; `tonumber` accepts a leading '+'.
local START_MARK = '+'

-- Virtual time charged to a holder. Many leases have the same charge, and a table lookup costs less
-- than parsing a number.
local charges_by_text = {}
local function charged_to(holder)
  local text = string.sub(holder, 25)
  charges_by_text[text] = charges_by_text[text] or tonumber(text) or 0
  return charges_by_text[text]
end

-- Unpacks an argument of concatenated records, each a job's id (16 bytes) and the fields of
-- `format`.
-- Returns the ids, and a function from a record's index to its fields.
local function unpacker(records, format)
  local ids, size = {}, 16 + struct.size(format)
  for i = 1, #records, size do ids[#ids + 1] = string.sub(records, i, i + 15) end
  return ids, function(at) return struct.unpack(format, records, (at - 1) * size + 17) end
end

-- Formats an integer for a command: `redis.call` formats a number argument with 17 digits.
local function whole(number) return string.format('%d', number) end

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

-- Number of workers that serve the queue, and their slots; workers last seen before `silence_ms`
-- ago are not counted.
local function workers_seen(now, silence_ms)
  local members, slots = redis.call('ZRANGEBYSCORE', workers, now - silence_ms, '+inf'), 0
  local count = 0
  for _, member in ipairs(members) do
    local of_this = tonumber(string.sub(member, 17))
    if of_this then count, slots = count + 1, slots + of_this end
  end
  return count, slots
end

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
