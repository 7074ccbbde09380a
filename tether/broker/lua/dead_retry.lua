-- ARGV: queue, id, when it died. Moves a dead letter back into its queue. Returns 1; 2 where this very letter was
--   retried within the last hour; 0 where it is not there; -1 where its message is lost.
local queue, id = ARGV[1], ARGV[2]
local retried = key('retried:' .. queue .. ':' .. ARGV[3] .. ':' .. id)
local died_at = redis.call('ZSCORE', key(queue .. '.XQ'), id)
if not died_at or tonumber(died_at) ~= tonumber(ARGV[3]) then
  return redis.call('EXISTS', retried) == 1 and 2 or 0
end
local data = redis.call('HGET', key(queue .. '.XQ.msgs'), id)
if not data then
  return -1
end
redis.call('SET', retried, '1', 'EX', SENT_LIFE)
put(queue, id, data)
redis.call('ZREM', key(queue .. '.XQ'), id)
redis.call('HDEL', key(queue .. '.XQ.msgs'), id)
return 1
