-- Needs: prelude, packed, flows, granting.
-- Adds waiting jobs to the index. Idempotent: a leased job stays leased, a waiting one is not added
-- twice.
-- ARGV: the jobs, packed: id, tenant, priority, run_at in ms (-inf: now). Returns the number of
-- jobs placed.
local flags = redis.call('HMGET', meta, 'idle', 'state', 'told', 'offer', 'paused', 'system_vtime')
-- The queue's shard count has changed, and no fetch reads this shard any more. The ledger has the
-- jobs.
if flags[2] == 'retired' then return 0 end
system_vtime = tonumber(flags[6] or 0) or 0
local now, ids, job = now_ms(), unpacker(ARGV[1], '<c16Bd')
local placed, last, put_off = 0, nil, {}
-- A requeued job is due later than in the ledger, and the sweeps must not bring it forward.
if redis.call('EXISTS', due) == 1 then
  local members = {}
  for at, id in ipairs(ids) do
    local tenant, priority = job(at)
    members[at] = id .. tenant .. priority
  end
  put_off = redis.call('ZMSCORE', due, unpack(members))
end
-- A delayed push may report a later run_at for a job already in its flow. The job stays there, and
-- the ledger decides when it is leased.
local function waits_elsewhere(at, tenant, run_at)
  return put_off[at] or run_at > now and redis.call('ZSCORE', flow_of(tenant), ids[at])
end
for at, holder in ipairs(redis.call('HMGET', held, unpack(ids))) do
  local id, tenant, priority, run_at = ids[at], job(at)
  if not holder and not waits_elsewhere(at, tenant, run_at) then
    place(id, tenant, priority, run_at == -math.huge and now or run_at, now)
    placed, last = placed + 1, id
  end
end
enter_flows()

-- Without idle workers, a push for a tenant that had nothing waiting notifies the busy ones, at
-- most once per 5 ms: they fetch its first job outside of their regular rounds.
local is_idle = flags[1] == '1'
local is_for_newly_active = not is_idle and somebody_new and now - (tonumber(flags[3]) or 0) >= 5
if is_for_newly_active then redis.call('HSET', meta, 'told', now) end
-- No tenant has entered if all jobs are due later; workers are still notified, to learn the next
-- due time.
-- A ready mark for newly active tenants only also accepts a tenant that has jobs waiting but none
-- running: no other fetch would visit it.
local offer, granted = read_offer(flags[4]), nil
local is_wanted = is_idle or is_for_newly_active or offer and offer.is_for_newly_active
if offer and is_wanted and next(entered) and flags[5] ~= '1' and flags[2] == 'ready' then granted = grant(offer, now) end
if placed > 0 and not (placed == 1 and granted == last) then
  wake_idle(flags[1])
  if is_for_newly_active then redis.call('PUBLISH', root .. ':wake', 'new') end
end
return placed
