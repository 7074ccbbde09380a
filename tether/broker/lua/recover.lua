-- ARGV: dead broker, its last heartbeat as seen, queues to look in besides those it listed.
-- Returns {queue, given back, of these begun, queue, ...}; nothing where it came back or was recovered.
pass_memory_limit()
local dead, seen = ARGV[1], ARGV[2]
if redis.call('ZSCORE', heartbeats, dead) ~= seen then
  return {}
end
local queues = redis.call('SMEMBERS', key('held:' .. dead))
for i = 3, #ARGV do
  queues[#queues + 1] = ARGV[i]
end
local answer = {}
for _, queue in ipairs(queues) do
  local ids = redis.call('SMEMBERS', acks_of(dead, queue))
  local crashed = 0
  for _, id in ipairs(ids) do
    if redis.call('SISMEMBER', begun_of(dead, queue), id) == 1 then
      redis.call('HINCRBY', key('crashes:' .. queue), id, 1)
      crashed = crashed + 1
    end
  end
  local returned = put_back(queue, ids)
  redis.call('DEL', acks_of(dead, queue), begun_of(dead, queue))
  if returned > 0 then
    answer[#answer + 1] = queue
    answer[#answer + 1] = returned
    answer[#answer + 1] = crashed
  end
end
redis.call('ZREM', heartbeats, dead)
redis.call('DEL', key('held:' .. dead))
-- Should it wake after all, it must learn that its messages are others' now.
redis.call('SET', key('lost:' .. dead), '1', 'EX', 7 * 86400)
return answer
