-- ARGV: queue, broker, id, producer, then (queue, id, data) for each message that follows it.
-- Returns 1, or 0 where this broker no longer holds the message.
local queue, broker, id = ARGV[1], ARGV[2], ARGV[3]
if done_before(ARGV[4], 5) then
  return 1
end
-- Its begin mark means nothing without it: the next heartbeat clears it away.
local held = redis.call('SREM', acks_of(broker, queue), id)
local orphaned = is_orphaned(queue, broker, id, held)
if held == 1 then
  redis.call('HDEL', key(queue .. '.msgs'), id)
  redis.call('HDEL', key('crashes:' .. queue), id)
end
if held == 1 or orphaned then
  put_followers(ARGV[4], 5)
end
return held
