-- ARGV: queue, broker. Drops what waits and what this broker holds; dead letters stay.
local queue, broker = ARGV[1], ARGV[2]
redis.call('DEL', key(queue), key(queue .. '.msgs'), key('bell:' .. queue), key('crashes:' .. queue),
  acks_of(broker, queue), begun_of(broker, queue))
return 1
