-- Shared by every script. KEYS[1] is <namespace>:__heartbeats__; all other keys live in the same slot.
local prefix = string.sub(KEYS[1], 1, -16)
local heartbeats = KEYS[1]

local function key(name)
  return prefix .. ':' .. name
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

-- Idempotent by id: a client that lost the reply may send the same message again.
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
