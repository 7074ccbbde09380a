-- ARGV: queue, broker, how many. Moves messages from the queue to the broker's ack set.
-- Returns {id, data, crashes, id, data, crashes, ...}.
local queue, broker, wanted = ARGV[1], ARGV[2], tonumber(ARGV[3])
if redis.call('EXISTS', key('lost:' .. broker)) == 1 then
  -- It will go on under another name. What the bell said is for others.
  if redis.call('LLEN', key(queue)) > 0 then
    ring(queue)
  end
  return {}
end
local found = {}
local crashes = key('crashes:' .. queue)
local any_crashed = redis.call('EXISTS', crashes) == 1
while wanted > 0 do
  local ids = redis.call('LPOP', key(queue), math.min(wanted, 1000))
  if not ids then
    break
  end
  local datas = redis.call('HMGET', key(queue .. '.msgs'), unpack(ids))
  local live = {}
  for i, id in ipairs(ids) do
    if datas[i] then
      live[#live + 1] = id
      found[#found + 1] = id
      found[#found + 1] = datas[i]
      found[#found + 1] = any_crashed and redis.call('HGET', crashes, id) or '0'
    end
  end
  if #live > 0 then
    redis.call('SADD', acks_of(broker, queue), unpack(live))
    wanted = wanted - #live
  end
end
if #found > 0 then
  -- Whoever holds messages can be found by those who look for the dead.
  redis.call('ZADD', heartbeats, 'NX', now_ms(), broker)
  redis.call('SADD', key('held:' .. broker), queue)
end
if redis.call('LLEN', key(queue)) == 0 then
  redis.call('DEL', key('bell:' .. queue))
else
  ring(queue)
end
return found
