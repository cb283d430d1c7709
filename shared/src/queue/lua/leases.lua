-- Needs: nothing.
-- The entries of a job in `held` and `leases`. Only a job in neither may be leased, so that the
-- loss of one entry causes no second run.

-- Score of a lease that a rescue has claimed.
local CLAIMED = 0

local function is_claimed(expiry) return expiry and tonumber(expiry) <= CLAIMED end

-- Virtual time charged to a holder. Many leases have the same charge, and a table lookup costs less
-- than parsing a number.
local charges = {}
local function charged_to(holder)
  local text = string.sub(holder, 25)
  charges[text] = charges[text] or tonumber(text) or 0
  return charges[text]
end
