-- KEYS[1]: <namespace>:fleet:unroutable
-- ARGV: worker id, boot counter, sequence
-- Returns 1 where the worker is unroutable up to this order from now on, 0 where something newer is known of it,
-- or it is unroutable up to there already.
local base = string.sub(KEYS[1], 1, -11)
-- At its memory limit Redis refuses what may take memory only as a script's first write: a delete comes first, of a key
-- that never is. A worker that lost a job would be given the next one.
redis.call('DEL', base .. 'none')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local worker, boot, sequence = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

local function parts(order)
  local known_boot, known_sequence = string.match(order, '^(%d+):(%d+)$')
  return tonumber(known_boot), tonumber(known_sequence)
end

local known = redis.call('HGET', base .. 'order', worker)
if known then
  local known_boot, known_sequence = parts(known)
  if known_boot > boot or (known_boot == boot and known_sequence > sequence) then
    return 0
  end
end
local mark = redis.call('HGET', KEYS[1], worker)
if mark then
  local marked_boot, marked_sequence = parts(mark)
  if marked_boot > boot or (marked_boot == boot and marked_sequence >= sequence) then
    return 0
  end
end

local order = ARGV[2] .. ':' .. ARGV[3]
redis.call('HSET', KEYS[1], worker, order)
-- The mark goes an hour after this, also where the worker is never heard of.
redis.call('ZADD', base .. 'expiry', 'NX', now, worker)
redis.call('PUBLISH', base .. 'news', 'u' .. worker .. ' ' .. order)
return 1
