-- Handing a job to a worker that has offered to take one, by the script that brings it: saves the worker the way here and back.
local TENANTS_LOOKED_AT = 20

-- What a fetch has left in `offer`.
local function read_offer(packed)
  local subscription, lease_ms, until_ms, for_newcomers = string.match(packed or '', '^(%S+) (%d+) (%d+) (%d) ')
  return subscription and {
    channel = root .. ':granted:' .. subscription, lease_ms = tonumber(lease_ms), until_ms = tonumber(until_ms),
    is_for_newcomers = for_newcomers == '1', token = string.sub(packed, -8),
  }
end

-- Leases the job that is next to whoever made the offer, and tells it so; returns the id, if there was one. An offer counts once.
local function grant(offer, now)
  if now > offer.until_ms then return nil end
  -- What is leased to somebody who is gone would wait for the end of the lease. And the index is of this life of Redis: it was when the
  -- offer was made, and whoever listens by the same connection still has done so since.
  if redis.call('PUBSUB', 'NUMSUB', offer.channel)[2] == 0 then return nil end
  local ids, scores = lease(1, offer.lease_ms, offer.token, TENANTS_LOOKED_AT, now, offer.is_for_newcomers)
  if not ids[1] then return nil end
  redis.call('HDEL', meta, 'offer')
  redis.call('PUBLISH', offer.channel, offer.token .. ids[1] .. string.format('%.0f', now) .. ' ' .. scores[1])
  return ids[1]
end
