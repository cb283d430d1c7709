-- Needs: prelude.
-- Publishes changes of followed jobs that no other script publishes. ARGV: ids. Returns 1.
local announce = announcer(now_ms())
for _, id in ipairs(ARGV) do announce(id, 'u') end
return 1
