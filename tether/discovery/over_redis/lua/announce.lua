-- KEYS[1]: <namespace>:fleet:presence
-- ARGV, for each announcement: worker id, envelope, boot counter, sequence, life in ms, 1 for a goodbye
-- Answers how many count, and how many are known already, just like this. Of one worker, only what is strictly
-- newer counts.
local base = string.sub(KEYS[1], 1, -9)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function is_old(boot, sequence, order)
  local known_boot, known_sequence = string.match(order, '^(%d+):(%d+)$')
  known_boot, known_sequence = tonumber(known_boot), tonumber(known_sequence)
  return boot < known_boot or (boot == known_boot and sequence <= known_sequence)
end

local news, same = {}, 0
for i = 1, #ARGV, 6 do
  local worker, envelope = ARGV[i], ARGV[i + 1]
  local boot, sequence, life = tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4])
  local order = ARGV[i + 2] .. ':' .. ARGV[i + 3]
  local known = redis.call('HGET', base .. 'order', worker)
  if known and is_old(boot, sequence, known) then
    -- Who came first, the worker or a mirror, is of no matter. Of a goodbye nothing is left to compare.
    if known == order and (redis.call('HGET', KEYS[1], worker) or envelope) == envelope then
      same = same + 1
    end
  else
    redis.call('HSET', base .. 'order', worker, order)
    if ARGV[i + 5] == '1' then
      redis.call('HDEL', KEYS[1], worker)
      redis.call('ZREM', base .. 'expiry', worker)
    else
      redis.call('HSET', KEYS[1], worker, envelope)
      redis.call('ZADD', base .. 'expiry', now + life, worker)
    end
    local mark = redis.call('HGET', base .. 'unroutable', worker)
    if mark and not is_old(boot, sequence, mark) then
      redis.call('HDEL', base .. 'unroutable', worker)
    end
    news[#news + 1] = struct.pack('>I4I4', life, #envelope) .. envelope
  end
end

if #news > 0 then
  -- What ran out an hour ago helps nobody any more. The order stays: it keeps old announcements out.
  local expiry = base .. 'expiry'
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', expiry, '-inf', now - 3600000, 'LIMIT', 0, 16)) do
    redis.call('HDEL', KEYS[1], gone)
    redis.call('HDEL', base .. 'unroutable', gone)
    redis.call('ZREM', expiry, gone)
  end
  redis.call('PUBLISH', base .. 'news', 'a' .. table.concat(news))
end
return {#news, same}
