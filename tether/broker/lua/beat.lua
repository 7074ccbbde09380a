-- ARGV: broker ('' for one without consumers), heartbeat timeout ms, longest pause between ticks ms,
--   age ms after which a foreign broker is dead, dead letters' life ms (-1: for ever), queues.
-- Returns {1} where this broker was taken for dead, else {0, then (suspect, its last heartbeat,
--   ms of silence, 1 for one of our kind) for each}.
pass_memory_limit()
local broker, timeout, longest_pause = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local foreign_timeout, dead_letter_life = tonumber(ARGV[4]), tonumber(ARGV[5])
local now = now_ms()

-- Who only looks now and then is no sign of life: it looks twice instead.
local tick = redis.call('GET', key('core:tick'))
if broker ~= '' then
  redis.call('SET', key('core:tick'), now)
end
if broker ~= '' and (not tick or now - tonumber(tick) > longest_pause) then
  -- Nobody could beat, so silence proves nothing: everyone gets a whole timeout from now.
  for _, member in ipairs(redis.call('ZRANGE', heartbeats, 0, -1)) do
    if redis.call('EXISTS', key('held:' .. member)) == 1 then
      redis.call('ZADD', heartbeats, now, member)
    end
  end
end

if broker ~= '' then
  if redis.call('EXISTS', key('lost:' .. broker)) == 1 then
    return {1}
  end
  redis.call('ZADD', heartbeats, now, broker)
end

-- By a clock that was set back, who died before that would live for as much longer.
for _, member in ipairs(redis.call('ZRANGEBYSCORE', heartbeats, '(' .. now, '+inf')) do
  redis.call('ZADD', heartbeats, now, member)
end

for i = 6, #ARGV do
  local queue = ARGV[i]
  if redis.call('LLEN', key(queue)) > 0 then
    ring(queue)
  end
  if broker ~= '' then
    redis.call('SINTERSTORE', begun_of(broker, queue), begun_of(broker, queue), acks_of(broker, queue))
  end
  if dead_letter_life >= 0 then
    local over = redis.call('ZRANGEBYSCORE', key(queue .. '.XQ'), '-inf', now - dead_letter_life)
    for _, id in ipairs(over) do
      redis.call('ZREM', key(queue .. '.XQ'), id)
      redis.call('HDEL', key(queue .. '.XQ.msgs'), id)
    end
  end
end

local answer = {0}
local silent = redis.call('ZRANGEBYSCORE', heartbeats, '-inf', now - timeout, 'WITHSCORES')
for i = 1, #silent, 2 do
  local own_kind = redis.call('EXISTS', key('held:' .. silent[i])) == 1
  if silent[i] ~= broker and (own_kind or tonumber(silent[i + 1]) <= now - foreign_timeout) then
    answer[#answer + 1] = silent[i]
    answer[#answer + 1] = silent[i + 1]
    answer[#answer + 1] = tostring(now - tonumber(silent[i + 1]))
    answer[#answer + 1] = own_kind and 1 or 0
  end
end
return answer
