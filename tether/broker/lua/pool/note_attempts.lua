-- Notes attempts that ended of one model in one region, for its breaker: the newest are kept.
-- ARGV: breaker, how many are kept, for how long (ms), attempt (JSON)...
-- Returns: how many are kept now.
pass_memory_limit()
local name, most, life = ARGV[1], whole(ARGV[2], MAX_SET_ASIDE), whole(ARGV[3], MAX_LIFE)
if not most or not life or #name > MAX_NAME_BYTES then
  return refuse('note_attempts: an argument')
end
local noted, names = key('attempts:' .. name), key('core:breakers')
for i = 4, #ARGV do
  apply('RPUSH', noted, ARGV[i])
end
redis.call('LTRIM', noted, -most, -1)
redis.call('PEXPIRE', noted, integer(life))
apply('ZADD', names, now_ms(), name)
return redis.call('LLEN', noted)
