-- Handing a job to a worker that has offered to take one, by the script that brings it: saves the worker the way here and back.
local TENANTS_LOOKED_AT = 20

-- Leases the job that is next to whoever made the offer, and tells it so; returns the id, if there was one. An offer counts once.
local function grant(offer, now)
  local subscription, lease_ms, until_ms = string.match(offer, '^(%S+) (%d+) (%d+) ')
  local token = string.sub(offer, -8)
  if now > tonumber(until_ms) then return nil end
  local channel = root .. ':granted:' .. subscription
  -- What is leased to somebody who is gone would wait for the end of the lease. And the index is of this life of Redis: it was when the
  -- offer was made, and whoever listens by the same connection still has done so since.
  if redis.call('PUBSUB', 'NUMSUB', channel)[2] == 0 then return nil end
  local ids, scores = lease(1, tonumber(lease_ms), token, TENANTS_LOOKED_AT, now)
  if not ids[1] then return nil end
  redis.call('HDEL', meta, 'offer')
  redis.call('PUBLISH', channel, token .. ids[1] .. string.format('%.0f', now) .. ' ' .. scores[1])
  return ids[1]
end
