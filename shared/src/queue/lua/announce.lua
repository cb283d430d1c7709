-- Tells those who follow jobs that something shown of them changed, which no other script does. ARGV: the ids. Returns 1.
local announce = announcer(now_ms())
for _, id in ipairs(ARGV) do announce(id, 'u') end
return 1
