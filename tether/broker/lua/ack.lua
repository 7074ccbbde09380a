-- ARGV: queue, broker, id, then (queue, id, data) for each message that takes its place.
-- Answers 1, or 0 where this broker no longer holds the message.
local queue, broker, id = ARGV[1], ARGV[2], ARGV[3]
local held = redis.call('SREM', acks_of(broker, queue), id)
redis.call('SREM', begun_of(broker, queue), id)
-- Unknown and never taken from us: Redis lost it, and the place-taker is all that is left of it.
local orphaned = #ARGV > 3 and held == 0
  and redis.call('HEXISTS', key(queue .. '.msgs'), id) == 0
  and redis.call('EXISTS', key('lost:' .. broker)) == 0
if held == 1 then
  redis.call('HDEL', key(queue .. '.msgs'), id)
  redis.call('HDEL', key('crashes:' .. queue), id)
end
if held == 1 or orphaned then
  for i = 4, #ARGV, 3 do
    put(ARGV[i], ARGV[i + 1], ARGV[i + 2])
  end
end
return held
