-- ARGV: queue, how many ids are to go, these, then (id, when it died in ms, message) for each copy to be there.
-- Keeps copies of dead letters where Dramatiq's tools look for them. Returns how many went and came.
pass_memory_limit()
local letters, messages = key(ARGV[1] .. '.XQ'), key(ARGV[1] .. '.XQ.msgs')
local first = 3 + tonumber(ARGV[2])
local changed = 0
for i = 3, first - 1 do
  local known = redis.call('ZREM', letters, ARGV[i]) + redis.call('HDEL', messages, ARGV[i])
  changed = changed + math.min(known, 1)
end
for i = first, #ARGV, 3 do
  redis.call('ZADD', letters, ARGV[i + 1], ARGV[i])
  redis.call('HSET', messages, ARGV[i], ARGV[i + 2])
  changed = changed + 1
end
return changed
