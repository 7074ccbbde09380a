-- ARGV: queue, the earliest time in ms ('' for any), the time before which they died ('' for any), time and id of the
--   dead letter after which to go on ('' for the first), how many, the bytes of their messages together and of each.
-- Returns {1 where there are more, else 0, then (id, time, bytes or -1 where its message is lost, the message or '')
--   for each}, newest first.
local letters, messages = key(ARGV[1] .. '.XQ'), key(ARGV[1] .. '.XQ.msgs')
local count, room, longest = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local first, beyond = 0, redis.call('ZCARD', letters)
if ARGV[2] ~= '' then
  beyond = redis.call('ZCOUNT', letters, ARGV[2], '+inf')
end
if ARGV[3] ~= '' then
  first = redis.call('ZCOUNT', letters, ARGV[3], '+inf')
end
if ARGV[4] ~= '' then
  -- Where that letter stands among those of its time, or stood: it may be gone.
  local low = redis.call('ZCOUNT', letters, '(' .. ARGV[4], '+inf')
  local high = redis.call('ZCOUNT', letters, ARGV[4], '+inf')
  while low < high do
    local middle = math.floor((low + high) / 2)
    if redis.call('ZREVRANGE', letters, middle, middle)[1] < ARGV[5] then
      high = middle
    else
      low = middle + 1
    end
  end
  first = math.max(first, low)
end
local answer = {0}
local found = {}
if first < beyond then
  found = redis.call('ZREVRANGE', letters, first, math.min(first + count, beyond - 1), 'WITHSCORES')
end
for i = 1, #found, 2 do
  local bytes, message = -1, ''
  if redis.call('HEXISTS', messages, found[i]) == 1 then
    bytes = redis.call('HSTRLEN', messages, found[i])
  end
  if bytes >= 0 and bytes <= longest then
    room = room - bytes
  end
  if i > 2 * count or (room < 0 and i > 1) then
    answer[1] = 1
    break
  end
  if bytes >= 0 and bytes <= longest then
    message = redis.call('HGET', messages, found[i])
  end
  answer[#answer + 1] = found[i]
  answer[#answer + 1] = found[i + 1]
  answer[#answer + 1] = bytes
  answer[#answer + 1] = message
end
return answer
