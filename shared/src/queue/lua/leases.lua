-- What `held` and `leases` say of a job. Only a job that is in neither may be handed out, so that the loss of one of them doubles no run.

-- The score of a lease that a rescue has claimed.
local CLAIMED = 0

local function is_claimed(expiry) return expiry and tonumber(expiry) <= CLAIMED end

-- The virtual time that a holder was charged. Many leases are charged the same, and reading a number costs more than finding it again.
local charges = {}
local function charged_to(holder)
  local text = string.sub(holder, 25)
  charges[text] = charges[text] or tonumber(text) or 0
  return charges[text]
end
