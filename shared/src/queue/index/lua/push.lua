-- Needs: layout, fair_share, leases.
-- Adds waiting jobs to the index. Idempotent: a leased job stays leased, a waiting one is not added
-- twice. If a worker has left a ready mark, leases a job to it and publishes the lease (direct
-- dispatch), which saves the worker a fetch.
-- KEYS[1]: root key of the shard.
-- ARGV: the jobs, packed: id, tenant, priority, run_at in ms (-inf: now). Returns the number of
-- added jobs.
local flags = redis.call('HMGET', meta, 'idle', 'state', 'newly_active_at', 'ready_mark', 'paused', 'system_vtime')
-- The queue's shard count has changed, and no fetch reads this shard any more. The ledger has the
-- jobs.
if flags[2] == 'retired' then return 0 end
system_vtime = tonumber(flags[6] or 0) or 0
local now, ids, job = now_ms(), unpacker(ARGV[1], '<c16Bd')
local added, last, requeued = 0, nil, {}
-- A requeued job is due later than in the ledger, and the sweeps must not bring it forward.
if redis.call('EXISTS', due) == 1 then
  local members = {}
  for at, id in ipairs(ids) do
    local tenant, priority = job(at)
    members[at] = id .. tenant .. priority
  end
  requeued = redis.call('ZMSCORE', due, unpack(members))
end
-- A delayed push may report a later run_at for a job already in its flow. The job stays there, and
-- the ledger decides when it is leased.
local function waits_elsewhere(at, tenant, run_at)
  return requeued[at] or run_at > now and redis.call('ZSCORE', flow_of(tenant), ids[at])
end
for at, holder in ipairs(redis.call('HMGET', held, unpack(ids))) do
  local id, tenant, priority, run_at = ids[at], job(at)
  if not holder and not waits_elsewhere(at, tenant, run_at) then
    add_waiting(id, tenant, priority, run_at == -math.huge and now or run_at, now)
    added, last = added + 1, id
  end
end
store_waiting()

-- Parses the ready mark that `fetch.lua` wrote.
local function parse_ready_mark(packed)
  local subscription, lease_ms, until_ms, for_newly_active = string.match(packed or '', '^(%S+) (%d+) (%d+) (%d) ')
  return subscription and {
    channel = root .. ':dispatched:' .. subscription, lease_ms = tonumber(lease_ms), until_ms = tonumber(until_ms),
    is_for_newly_active = for_newly_active == '1', token = string.sub(packed, -8),
  }
end

local TENANTS_VISITED = 20

-- Leases the next job to the worker of a ready mark and publishes the lease; returns the id, if
-- there was a job. A ready mark is used once.
local function dispatch(mark)
  if now > mark.until_ms then return nil end
  -- A lease for a closed connection would block the job until it expires. The check also proves
  -- that Redis has not restarted since the index was built: the fetch that left the mark verified
  -- the run id, and its connection is still open.
  if redis.call('PUBSUB', 'NUMSUB', mark.channel)[2] == 0 then return nil end
  local leased, flow_scores = lease_jobs(1, mark.lease_ms, mark.token, TENANTS_VISITED, now, mark.is_for_newly_active)
  if not leased[1] then return nil end
  redis.call('HDEL', meta, 'ready_mark')
  redis.call('PUBLISH', mark.channel, mark.token .. leased[1] .. string.format('%.0f', now) .. ' ' .. flow_scores[1])
  return leased[1]
end

-- Without idle workers, a push for a tenant that had nothing waiting notifies the busy ones, at
-- most once per 5 ms: they fetch its first job outside of their regular rounds.
local is_idle = flags[1] == '1'
local is_for_newly_active = not is_idle and has_newly_active and now - (tonumber(flags[3]) or 0) >= 5
if is_for_newly_active then redis.call('HSET', meta, 'newly_active_at', now) end
-- If all jobs are due later, no flow has changed; idle workers are still notified, because their
-- fetch returns the new next due time.
-- A ready mark for newly active tenants only also accepts a tenant that has jobs waiting but none
-- running: no other fetch would visit it.
local mark, dispatched = parse_ready_mark(flags[4]), nil
local is_wanted = is_idle or is_for_newly_active or mark and mark.is_for_newly_active
if mark and is_wanted and next(stored_tenants) and flags[5] ~= '1' and flags[2] == 'ready' then
  dispatched = dispatch(mark)
end
if added > 0 and not (added == 1 and dispatched == last) then
  wake_idle(flags[1])
  if is_for_newly_active then redis.call('PUBLISH', root .. ':wake', 'new') end
end
return added
