-- Needs: nothing.
-- Unpacks an argument of concatenated records, each a job's id (16 bytes) and the fields of
-- `format`.
-- Returns the ids, and a function from a record's index to its fields.
local function unpacker(records, format)
  local ids, size = {}, 16 + struct.size(format)
  for i = 1, #records, size do ids[#ids + 1] = string.sub(records, i, i + 15) end
  return ids, function(at) return struct.unpack(format, records, (at - 1) * size + 17) end
end
