-- Needs: prelude, leasing.
-- Direct dispatch: the script that adds a job leases it to a worker with a ready mark, which saves
-- the worker a fetch.
local TENANTS_LOOKED_AT = 20

-- Parses the ready mark that a fetch left in `offer`.
local function read_offer(packed)
  local subscription, lease_ms, until_ms, for_newly_active = string.match(packed or '', '^(%S+) (%d+) (%d+) (%d) ')
  return subscription and {
    channel = root .. ':granted:' .. subscription, lease_ms = tonumber(lease_ms), until_ms = tonumber(until_ms),
    is_for_newly_active = for_newly_active == '1', token = string.sub(packed, -8),
  }
end

-- Leases the next job to the worker of a ready mark and publishes the lease; returns the id, if
-- there was a job. A ready mark is used once.
local function grant(offer, now)
  if now > offer.until_ms then return nil end
  -- A lease for a closed connection would block the job until it expires. The check also proves
  -- that Redis has not restarted since the index was built: the fetch that left the mark verified
  -- the run id, and its connection is still open.
  if redis.call('PUBSUB', 'NUMSUB', offer.channel)[2] == 0 then return nil end
  local ids, scores = lease(1, offer.lease_ms, offer.token, TENANTS_LOOKED_AT, now, offer.is_for_newly_active)
  if not ids[1] then return nil end
  redis.call('HDEL', meta, 'offer')
  redis.call('PUBLISH', offer.channel, offer.token .. ids[1] .. string.format('%.0f', now) .. ' ' .. scores[1])
  return ids[1]
end
