-- Needs: layout.
-- Publishes changes of followed jobs that no other script publishes.
-- KEYS[1]: root key of the shard.
-- ARGV: ids. Returns 1.
local announce = announcer(now_ms())
for _, id in ipairs(ARGV) do announce(id, 'u') end
return 1
