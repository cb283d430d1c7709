-- Needs: layout, fair_share, limits.
-- Leases jobs in fair order. Service rounds are planned without writing: the tenant with the least
-- virtual time gets a round, until its virtual time passes the next tenant's or enough jobs are
-- planned. Then each kind of key is written by one command.

-- Entries of the tenants that are read and may start more, as a heap by virtual time; all other
-- active tenants have a virtual time of at least `horizon`. Fields of an entry: tenant, time,
-- planned (number of planned jobs); and from its first round on: limits (as loaded), cost and
-- charge (of one job), min_jobs (per round), waiting (jobs in the flow), left (jobs that it may
-- still start).
local heap, heap_size, tenants_read, horizon = {}, 0, 0, -math.huge

local function sift_down()
  local at, entry = 1, heap[1]
  while at * 2 <= heap_size do
    local child = at * 2
    if child < heap_size and heap[child + 1].time < heap[child].time then child = child + 1 end
    if heap[child].time >= entry.time then break end
    heap[at] = heap[child]
    at = child
  end
  heap[at] = entry
end

local function add_entry(entry)
  heap_size = heap_size + 1
  local at = heap_size
  while at > 1 and heap[math.floor(at / 2)].time > entry.time do
    heap[at] = heap[math.floor(at / 2)]
    at = math.floor(at / 2)
  end
  heap[at] = entry
end

local function drop_first()
  heap[1], heap[heap_size] = heap[heap_size], nil
  heap_size = heap_size - 1
  if heap_size > 0 then sift_down() end
end

local function read_page(length)
  local page, tenants = redis.call('ZRANGE', active, tenants_read, tenants_read + length - 1, 'WITHSCORES'), {}
  for i = 1, #page, 2 do
    tenants[#tenants + 1] = page[i]
    add_entry({ tenant = page[i], time = tonumber(page[i + 1]), planned = 0 })
  end
  if #tenants > 0 then load_tenants(tenants) end
  tenants_read = tenants_read + #tenants
  horizon = #tenants == length and tonumber(page[#page]) or math.huge
end

-- Minimum worker time of a service round in ms, for tenants with shorter jobs: changing flows costs
-- more than such a job, and a wait that short is not noticeable.
local SERVICE_ROUND_MS = 1

local cached_start_ms = nil

local function open_entry(entry, now, is_for_newly_active)
  entry.limits = tenants_by_id[entry.tenant]
  local average = entry.limits.average or 1
  cached_start_ms = cached_start_ms or start_cost()
  entry.cost = virtual_cost(average, cached_start_ms, entry.limits.weight)
  entry.charge = format_charge(entry.cost, average, cached_start_ms)
  entry.min_jobs = math.max(1, math.floor(SERVICE_ROUND_MS / average))
  -- An invalid member counts as an empty flow, so `store_virtual_times` removes it.
  entry.waiting = #entry.tenant == 16 and redis.call('ZCARD', flow_of(entry.tenant)) or 0
  entry.left = math.min(entry.waiting, (allowance(entry.tenant, entry.limits, now)))
  if is_for_newly_active then entry.left = entry.limits.running > 0 and 0 or math.min(entry.left, 1) end
end

-- Number of jobs of the first tenant in its service round, at most `most`; 0 if it may start no
-- more or has none.
local function service_round(entry, most)
  local second = horizon
  if heap_size > 1 then second = math.min(second, heap[2].time) end
  if heap_size > 2 then second = math.min(second, heap[3].time) end
  if second < math.huge then
    most = math.min(most, math.max(entry.min_jobs, math.floor((second - entry.time) / entry.cost) + 1))
  end
  return math.min(most, entry.left)
end

-- Pops the planned jobs from the flows, in the order of the service rounds (`sequence`); returns
-- ids, scores, and entries of their tenants.
local function pop_planned(sequence, visited)
  local ids, scores, entries = {}, {}, {}
  for _, entry in ipairs(visited) do
    entry.popped = entry.planned > 0 and redis.call('ZPOPMIN', flow_of(entry.tenant), entry.planned) or {}
    entry.next = 1
  end
  for _, entry in ipairs(sequence) do
    local id, score = entry.popped[entry.next], entry.popped[entry.next + 1]
    entry.next = entry.next + 2
    if id then ids[#ids + 1], scores[#scores + 1], entries[#entries + 1] = id, score, entry end
  end
  return ids, scores, entries
end

-- Marks the jobs that must not be leased: leased ones, repeated ids, and invalid ids, which are
-- dropped. Only a job neither in `held` nor in `leases` may be leased, so that the loss of one
-- entry causes no second run.
local function unleasable(ids)
  local holders, ends = redis.call('HMGET', held, unpack(ids)), redis.call('ZMSCORE', leases, unpack(ids))
  local marks, repeated = {}, {}
  for at, id in ipairs(ids) do
    marks[at] = holders[at] or ends[at] or #id ~= 16 or repeated[id]
    repeated[id] = true
  end
  return marks
end

-- Writes the leases; `served` maps a tenant to its number of leases.
local function store_leases(ids, expiries, holders, served, now)
  if #ids == 0 then return end
  redis.call('ZADD', leases, unpack(expiries))
  redis.call('HSET', held, unpack(holders))
  for tenant, count in pairs(served) do
    if tenants_by_id[tenant].rate > 0 then take_tokens(tenant, tenants_by_id[tenant], now, count) end
  end
  store_tenants(served)
  local announce = announcer(now)
  for _, id in ipairs(ids) do announce(id, 'l') end
end

-- After its service rounds, stores each tenant's new virtual time: among the active tenants, among
-- the throttled ones, or aside if its flow is empty.
local function store_virtual_times(visited, now)
  local still_active, emptied, emptied_times = {}, {}, {}
  for _, entry in ipairs(visited) do
    local tenant, most, ready_at = entry.tenant, allowance(entry.tenant, entry.limits, now)
    if entry.waiting <= entry.planned then
      emptied[#emptied + 1] = tenant
      emptied_times[#emptied_times + 1], emptied_times[#emptied_times + 2] = tenant, entry.time
    elseif most <= 0 then
      throttle(tenant, entry.time, ready_at)
    else
      still_active[#still_active + 1], still_active[#still_active + 2] = entry.time, tenant
    end
  end
  if #emptied > 0 then
    redis.call('ZREM', active, unpack(emptied))
    redis.call('HSET', vtimes, unpack(emptied_times))
  end
  if #still_active > 0 then redis.call('ZADD', active, unpack(still_active)) end
end

-- Plans up to `wanted` jobs. Returns the entry of each job in order, the visited entries, the
-- virtual time of the last service round, and whether `bound` was reached.
local function plan(wanted, bound, now, is_for_newly_active)
  local sequence, visited, empty_rounds, last_time = {}, {}, 0, nil
  while #sequence < wanted and empty_rounds < bound do
    if horizon < math.huge and (heap_size == 0 or heap[1].time > horizon) then
      read_page(math.min(100, wanted - #sequence + 1))
    elseif heap_size == 0 then
      break
    else
      local first = heap[1]
      if not first.left then
        visited[#visited + 1] = first
        open_entry(first, now, is_for_newly_active)
      end
      local jobs = service_round(first, wanted - #sequence)
      if jobs == 0 then
        empty_rounds = empty_rounds + 1
        drop_first()
      else
        for _ = 1, jobs do sequence[#sequence + 1] = first end
        last_time = first.time
        first.planned, first.left, first.time = first.planned + jobs, first.left - jobs, first.time + jobs * first.cost
        if first.left == 0 then drop_first() else sift_down() end
      end
    end
  end
  return sequence, visited, last_time, empty_rounds >= bound
end

-- Leases up to `wanted` jobs under a token, in order of the tenants' virtual times; with
-- `is_for_newly_active` only the first job of tenants that have nothing running. Stops after
-- `bound` tenants that may start none. Returns the ids, their scores in their flows, and whether
-- the bound was reached.
local function lease_jobs(wanted, lease_ms, token, bound, now, is_for_newly_active)
  local sequence, visited, last_time, is_cut = plan(wanted, bound, now, is_for_newly_active)
  local ids, scores, entries = pop_planned(sequence, visited)
  local leased, flow_scores, expiries, holders, served = {}, {}, {}, {}, {}
  -- Formatted once, because `redis.call` formats a number argument each time.
  local expiry = string.format('%.0f', now + lease_ms)
  local not_free = #ids > 0 and unleasable(ids)
  for at, id in ipairs(ids) do
    local entry = entries[at]
    if not_free[at] then
      entry.time = entry.time - entry.cost
    else
      leased[#leased + 1], flow_scores[#flow_scores + 1] = id, scores[at]
      expiries[#expiries + 1], expiries[#expiries + 2] = expiry, id
      entry.holder = entry.holder or token .. entry.tenant .. entry.charge
      holders[#holders + 1], holders[#holders + 2] = id, entry.holder
      entry.limits.running, served[entry.tenant] = entry.limits.running + 1, (served[entry.tenant] or 0) + 1
    end
  end
  store_leases(leased, expiries, holders, served, now)
  store_virtual_times(visited, now)
  if last_time then redis.call('HSET', meta, 'system_vtime', string.format('%.17g', last_time)) end
  return leased, flow_scores, is_cut
end
