-- Needs: prelude, rounds, apply_leases.
-- Marks the jobs that must not be leased: those already leased, repeated ids, and invalid ids,
-- which are dropped.
local function taken(ids)
  local holders, ends, not_free, seen = redis.call('HMGET', held, unpack(ids)), redis.call('ZMSCORE', leases, unpack(ids)), {}, {}
  for at, id in ipairs(ids) do
    not_free[at] = holders[at] or ends[at] or #id ~= 16 or seen[id]
    seen[id] = true
  end
  return not_free
end

-- Leases up to `wanted` jobs under a token, in order of the tenants' virtual times; with
-- `is_for_newly_active` only the first job of tenants that have nothing running. Stops after `bound`
-- tenants that may start none. Returns the ids, their scores in their flows, and whether the bound
-- was reached.
local function lease(wanted, lease_ms, token, bound, now, is_for_newly_active)
  local sequence, visited, idle_turns, last_turn = {}, {}, 0, nil
  while #sequence < wanted and idle_turns < bound do
    if horizon < math.huge and (size == 0 or heap[1].time > horizon) then
      read_page(math.min(100, wanted - #sequence + 1))
    elseif size == 0 then
      break
    else
      local first = heap[1]
      if not first.left then visited[#visited + 1] = first end
      local taken = turn(first, wanted - #sequence, now, is_for_newly_active)
      if taken == 0 then
        idle_turns = idle_turns + 1
        drop_first()
      else
        for _ = 1, taken do sequence[#sequence + 1] = first end
        last_turn = first.time
        first.taken, first.left, first.time = first.taken + taken, first.left - taken, first.time + taken * first.cost
        if first.left == 0 then drop_first() else sift_down() end
      end
    end
  end

  local ids, scores, entries = take_out(sequence, visited)
  local leased, flow_scores, expiries, holders, served = {}, {}, {}, {}, {}
  -- Formatted once, because `redis.call` formats a number argument each time.
  local expiry = string.format('%.0f', now + lease_ms)
  local not_free = #ids > 0 and taken(ids)
  for at, id in ipairs(ids) do
    local entry = entries[at]
    if not_free[at] then
      entry.time = entry.time - entry.cost
    else
      leased[#leased + 1], flow_scores[#flow_scores + 1] = id, scores[at]
      expiries[#expiries + 1], expiries[#expiries + 2] = expiry, id
      entry.holder = entry.holder or token .. entry.tenant .. entry.charge
      holders[#holders + 1], holders[#holders + 2] = id, entry.holder
      entry.about.running, served[entry.tenant] = entry.about.running + 1, (served[entry.tenant] or 0) + 1
    end
  end
  enter_leases(leased, expiries, holders, served, now)
  leave(visited, now)
  if last_turn then redis.call('HSET', meta, 'system_vtime', string.format('%.17g', last_turn)) end
  return leased, flow_scores, idle_turns >= bound
end
