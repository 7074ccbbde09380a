-- Shared by every script. KEYS[1] is <namespace>:__heartbeats__; all other keys live in the same slot.
local prefix = string.sub(KEYS[1], 1, -16)
local heartbeats = KEYS[1]

local function key(name)
  return prefix .. ':' .. name
end

-- What says that somebody lives, and what gives back what the dead held, begins with this. At its memory limit Redis
-- refuses what may take memory only as a script's first write; so a delete comes first, of a key that never is.
local function pass_memory_limit()
  redis.call('DEL', key('core:none'))
end

local function acks_of(broker, queue)
  return key('__acks__.' .. broker .. '.' .. queue)
end

local function begun_of(broker, queue)
  return key('begun:' .. broker .. '.' .. queue)
end

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- One token is enough: whoever takes it and leaves messages behind rings again for the next consumer.
local function ring(queue)
  local bell = key('bell:' .. queue)
  if redis.call('LLEN', bell) == 0 then
    redis.call('RPUSH', bell, '1')
  end
end

-- Idempotent by id while the message is known.
local function put(queue, id, data)
  if redis.call('HSETNX', key(queue .. '.msgs'), id, data) == 0 then
    return 0
  end
  redis.call('RPUSH', key(queue), id)
  ring(queue)
  return 1
end

-- To the head, since what comes back was there before what waits.
local function put_back(queue, ids)
  local returned = 0
  for i = #ids, 1, -1 do
    if redis.call('HEXISTS', key(queue .. '.msgs'), ids[i]) == 1 then
      redis.call('LPUSH', key(queue), ids[i])
      returned = returned + 1
    end
  end
  if returned > 0 then
    ring(queue)
  end
  return returned
end

-- Seconds for which it is remembered what a producer (one thread of a client) placed last. A client that
-- lost the reply sends the same call again; by then the message may have run and be forgotten.
local SENT_LIFE = 3600

-- Followers stand in ARGV from `first` on, as (queue, id, data) each.
local function done_before(producer, first)
  return #ARGV >= first and redis.call('GET', key('sent:' .. producer)) == ARGV[#ARGV - 1]
end

local function put_followers(producer, first)
  if #ARGV >= first then
    redis.call('SET', key('sent:' .. producer), ARGV[#ARGV - 1], 'EX', SENT_LIFE)
  end
  for i = first, #ARGV, 3 do
    put(ARGV[i], ARGV[i + 1], ARGV[i + 2])
  end
end

-- Ends a broker's hold of a message that goes back to its queue. Returns 1 where it had one.
local function release(queue, broker, id)
  redis.call('SREM', begun_of(broker, queue), id)
  return redis.call('SREM', acks_of(broker, queue), id)
end

-- Unknown and never taken from its broker: Redis lost it, and what follows is all that is left of it.
local function is_orphaned(queue, broker, id, held)
  return held == 0
    and redis.call('HEXISTS', key(queue .. '.msgs'), id) == 0
    and redis.call('EXISTS', key('lost:' .. broker)) == 0
end
