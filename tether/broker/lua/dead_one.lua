-- ARGV: queue, id, when it died, greatest number of bytes. Returns {bytes or -1 where its message is lost, the message
--   or ''}; nothing where no such letter is there.
local died_at = redis.call('ZSCORE', key(ARGV[1] .. '.XQ'), ARGV[2])
if not died_at or tonumber(died_at) ~= tonumber(ARGV[3]) then
  return {}
end
local messages = key(ARGV[1] .. '.XQ.msgs')
if redis.call('HEXISTS', messages, ARGV[2]) == 0 then
  return {-1, ''}
end
local bytes = redis.call('HSTRLEN', messages, ARGV[2])
return {bytes, bytes <= tonumber(ARGV[4]) and redis.call('HGET', messages, ARGV[2]) or ''}
