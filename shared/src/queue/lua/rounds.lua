-- Needs: prelude, tenants, fair_share.
-- Plans a fetch without writing: the tenant with the least virtual time gets a service round, until
-- its virtual time passes the next tenant's or enough jobs are planned. A heap holds the tenants
-- read so far; all other active tenants have a virtual time of at least `horizon`.
local heap, size, seen, horizon = {}, 0, 0, -math.huge

local function sift_down()
  local at, entry = 1, heap[1]
  while at * 2 <= size do
    local child = at * 2
    if child < size and heap[child + 1].time < heap[child].time then child = child + 1 end
    if heap[child].time >= entry.time then break end
    heap[at] = heap[child]
    at = child
  end
  heap[at] = entry
end

local function add(entry)
  size = size + 1
  local at = size
  while at > 1 and heap[math.floor(at / 2)].time > entry.time do
    heap[at] = heap[math.floor(at / 2)]
    at = math.floor(at / 2)
  end
  heap[at] = entry
end

local function drop_first()
  heap[1], heap[size] = heap[size], nil
  size = size - 1
  if size > 0 then sift_down() end
end

local function read_page(length)
  local page, tenants = redis.call('ZRANGE', active, seen, seen + length - 1, 'WITHSCORES'), {}
  for i = 1, #page, 2 do
    tenants[#tenants + 1] = page[i]
    add({ tenant = page[i], time = tonumber(page[i + 1]), taken = 0 })
  end
  if #tenants > 0 then learn(tenants) end
  seen = seen + #tenants
  horizon = #tenants == length and tonumber(page[#page]) or math.huge
end

-- Minimum worker time of a service round in ms, for tenants with shorter jobs: changing flows costs
-- more than such a job, and a wait that short is not noticeable.
local TURN_MS = 1

local start_ms = nil

-- Number of jobs of the first tenant in its service round; 0 if it may start no more or has none.
-- With `is_for_newly_active` one job, if the tenant has nothing running.
local function turn(entry, most, now, is_for_newly_active)
  if not entry.left then
    entry.about = known[entry.tenant]
    local average = entry.about.average or 1
    start_ms = start_ms or start_cost()
    entry.cost, entry.least = virtual_cost(average, start_ms, entry.about.weight), math.max(1, math.floor(TURN_MS / average))
    entry.charge = noted_charge(entry.cost, average, start_ms)
    -- An invalid member counts as an empty flow, so `leave` removes it.
    entry.waiting = #entry.tenant == 16 and redis.call('ZCARD', flow_of(entry.tenant)) or 0
    entry.left = math.min(entry.waiting, (allowance(entry.tenant, entry.about, now)))
    if is_for_newly_active then entry.left = entry.about.running > 0 and 0 or math.min(entry.left, 1) end
  end
  local second = math.min(horizon, size > 1 and heap[2].time or math.huge, size > 2 and heap[3].time or math.huge)
  if second < math.huge then most = math.min(most, math.max(entry.least, math.floor((second - entry.time) / entry.cost) + 1)) end
  return math.min(most, entry.left)
end
