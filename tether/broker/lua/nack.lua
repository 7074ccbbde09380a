-- ARGV: queue, broker, id, producer, then (queue, id, data) for each message that follows it.
-- Moves a held message to the dead letters of its queue. Returns 1, or 0 where it is no longer held.
local queue, broker, id = ARGV[1], ARGV[2], ARGV[3]
if done_before(ARGV[4], 5) then
  return 1
end
-- Its begin mark means nothing without it: the next heartbeat clears it away.
local held = redis.call('SREM', acks_of(broker, queue), id)
local orphaned = is_orphaned(queue, broker, id, held)
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
if held == 1 or orphaned then
  put_followers(ARGV[4], 5)
end
return held
