-- KEYS[1]: <namespace>:fleet:presence
-- ARGV, for each announcement: worker id, envelope, boot counter, sequence, life in ms, 1 for a goodbye
-- Returns how many count, and how many are known already, just like this. Of one worker, only what is strictly
-- newer counts.
local base = string.sub(KEYS[1], 1, -9)
-- At its memory limit Redis refuses what may take memory only as a script's first write: a delete comes first, of a key
-- that never is. Workers that could not announce themselves would be taken for dead.
redis.call('DEL', base .. 'none')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- What stands in a key and is of another type is thrown away: nobody can read it, and no worker could announce itself.
local function apply(command, name, ...)
  local answer = redis.pcall(command, name, ...)
  if type(answer) == 'table' and answer.err then
    if string.find(answer.err, 'WRONGTYPE', 1, true) then
      redis.call('DEL', name)
    end
    return redis.call(command, name, ...)
  end
  return answer
end

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
  local known = apply('HGET', base .. 'order', worker)
  if known and is_old(boot, sequence, known) then
    -- Who came first, the worker or a mirror, is of no matter. Of a goodbye nothing is left to compare.
    if known == order and (apply('HGET', KEYS[1], worker) or envelope) == envelope then
      same = same + 1
    end
  else
    apply('HSET', base .. 'order', worker, order)
    -- Since when it is known, and when its last life and this one began: a claim is believed for a while without proof.
    local known_since, _, began = string.match(apply('HGET', base .. 'since', worker) or '', '^(%d+) (%d+) (%d+)$')
    if not known_since or tonumber(string.match(known or '', '^%d+') or '-1') ~= boot then
      apply('HSET', base .. 'since', worker, string.format('%s %s %.0f', known_since or string.format('%.0f', now),
        began or string.format('%.0f', now), now))
    end
    if ARGV[i + 5] == '1' then
      apply('HDEL', KEYS[1], worker)
      apply('ZADD', base .. 'expiry', now, worker)
    else
      apply('HSET', KEYS[1], worker, envelope)
      apply('ZADD', base .. 'expiry', now + life, worker)
    end
    local mark = apply('HGET', base .. 'unroutable', worker)
    if mark and not is_old(boot, sequence, mark) then
      apply('HDEL', base .. 'unroutable', worker)
    end
    news[#news + 1] = struct.pack('>I4I4', life, #envelope) .. envelope
  end
end

if #news > 0 then
  local expiry = base .. 'expiry'
  -- The order of who is gone keeps old announcements out. Nobody accepts any that was issued 10 minutes ago: after an
  -- hour nothing is needed of it.
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', expiry, '-inf', now - 3600000, 'LIMIT', 0, 16)) do
    apply('HDEL', KEYS[1], gone)
    apply('HDEL', base .. 'order', gone)
    apply('HDEL', base .. 'unroutable', gone)
    apply('HDEL', base .. 'since', gone)
    redis.call('ZREM', expiry, gone)
  end
  -- Former versions wrote orders without an expiry, which would stay for ever.
  if redis.call('HLEN', base .. 'order') > redis.call('ZCARD', expiry) then
    for _, worker in ipairs(redis.call('HRANDFIELD', base .. 'order', 16)) do
      apply('ZADD', expiry, 'NX', now, worker)
    end
  end
  redis.call('PUBLISH', base .. 'news', 'a' .. table.concat(news))
end
return {#news, same}
