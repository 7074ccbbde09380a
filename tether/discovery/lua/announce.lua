-- KEYS[1]: <namespace>:fleet:presence
-- ARGV: worker id, envelope, boot counter, sequence, life in ms, 1 for a goodbye
-- Answers 1 where the announcement counts, 0 where something as new or newer is known.
local base = string.sub(KEYS[1], 1, -9)
local worker, envelope = ARGV[1], ARGV[2]
local boot, sequence = tonumber(ARGV[3]), tonumber(ARGV[4])

local known = redis.call('HGET', base .. 'order', worker)
if known then
  local known_boot, known_sequence = string.match(known, '^(%d+):(%d+)$')
  known_boot, known_sequence = tonumber(known_boot), tonumber(known_sequence)
  if boot < known_boot or (boot == known_boot and sequence <= known_sequence) then
    return 0
  end
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', base .. 'order', worker, ARGV[3] .. ':' .. ARGV[4])
if ARGV[6] == '1' then
  redis.call('HDEL', KEYS[1], worker)
  redis.call('ZREM', base .. 'expiry', worker)
else
  redis.call('HSET', KEYS[1], worker, envelope)
  redis.call('ZADD', base .. 'expiry', now + tonumber(ARGV[5]), worker)
end

-- What ran out an hour ago helps nobody any more. The order stays: it keeps old announcements out.
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', base .. 'expiry', '-inf', now - 3600000, 'LIMIT', 0, 16)) do
  redis.call('HDEL', KEYS[1], gone)
  redis.call('ZREM', base .. 'expiry', gone)
end

redis.call('PUBLISH', base .. 'news', envelope)
return 1
