-- ARGV: queue, broker, id. Moves a held message to the dead letters of its queue. Answers 1 or 0.
local queue, broker, id = ARGV[1], ARGV[2], ARGV[3]
local held = redis.call('SREM', acks_of(broker, queue), id)
redis.call('SREM', begun_of(broker, queue), id)
local data = held == 1 and redis.call('HGET', key(queue .. '.msgs'), id)
if data then
  local canonical = queue
  if string.sub(queue, -3) == '.DQ' then
    canonical = string.sub(queue, 1, -4)
  end
  redis.call('ZADD', key(canonical .. '.XQ'), now_ms(), id)
  redis.call('HSET', key(canonical .. '.XQ.msgs'), id, data)
  redis.call('HDEL', key(queue .. '.msgs'), id)
  redis.call('HDEL', key('crashes:' .. queue), id)
end
return held
