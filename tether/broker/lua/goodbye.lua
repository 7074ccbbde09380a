-- ARGV: broker. Forgets a broker that holds nothing; one that still does is left to be recovered. What it
-- had begun was ended by a stop, which counts for no attempt.
local broker = ARGV[1]
for _, queue in ipairs(redis.call('SMEMBERS', key('held:' .. broker))) do
  redis.call('DEL', begun_of(broker, queue))
end
for _, queue in ipairs(redis.call('SMEMBERS', key('held:' .. broker))) do
  if redis.call('SCARD', acks_of(broker, queue)) > 0 then
    return 0
  end
end
redis.call('ZREM', heartbeats, broker)
redis.call('DEL', key('held:' .. broker))
return 1
