-- ARGV: queue, the time before which they died ('' for any), the earliest time ('' for any), how many at most; or queue,
--   'one', id, when it died. Removes dead letters. Returns how many.
pass_memory_limit()
local letters, messages = key(ARGV[1] .. '.XQ'), key(ARGV[1] .. '.XQ.msgs')
local ids
if ARGV[2] == 'one' then
  local died_at = redis.call('ZSCORE', letters, ARGV[3])
  ids = died_at and tonumber(died_at) == tonumber(ARGV[4]) and {ARGV[3]} or {}
else
  local before = ARGV[2] == '' and '+inf' or '(' .. ARGV[2]
  local from = ARGV[3] == '' and '-inf' or ARGV[3]
  ids = redis.call('ZRANGEBYSCORE', letters, from, before, 'LIMIT', 0, ARGV[4])
end
for _, id in ipairs(ids) do
  redis.call('ZREM', letters, id)
  redis.call('HDEL', messages, id)
end
return #ids
