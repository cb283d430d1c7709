-- What a script is told of many jobs at once: records one after the other, each the 16 bytes of the job's id and then what `format` says.
-- Returns the ids, and what gives the fields of the record at a place.
local function unpacker(records, format)
  local ids, size = {}, 16 + struct.size(format)
  for i = 1, #records, size do ids[#ids + 1] = string.sub(records, i, i + 15) end
  return ids, function(at) return struct.unpack(format, records, (at - 1) * size + 17) end
end
