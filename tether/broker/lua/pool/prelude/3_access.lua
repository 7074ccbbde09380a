-- Reads and writes that no misfit in a key, and no full memory, ends half-way.

-- What ends or goes on with an attempt, or makes room, begins with this. At its memory limit Redis refuses what may take
-- memory only as a script's first write; so a delete comes first, of a key that never is.
local function pass_memory_limit()
  redis.call('DEL', key('core:none'))
end

-- Whether Redis would refuse a first write. This one writes nothing: the text that it sets is empty.
local function is_at_memory_limit()
  local answer = redis.pcall('SETRANGE', key('core:none'), 0, '')
  return type(answer) == 'table' and answer.err ~= nil and string.find(answer.err, 'OOM', 1, true) ~= nil
end

local function refuse(what)
  return redis.error_reply('INVALID ' .. what .. ': nothing was written')
end

-- Fields of a job's hash: false where it has none, nil where the key is of another type.
local function read(name, ...)
  local values = redis.pcall('HMGET', name, ...)
  if not values.err then
    return unpack(values)
  end
end

-- Whether what stands in a key is no such thing as the command works on. Other errors are no fault of the key.
local function is_misfit(err)
  return string.find(err, 'WRONGTYPE', 1, true) or string.find(err, 'equal or smaller', 1, true)
    or string.find(err, 'hash value is not', 1, true) or string.find(err, 'NaN or Inf', 1, true)
end

-- Runs a command on a key beside the job: what stands there and is no such thing is thrown away, since nobody can read
-- it, and since the scripts must not end half-way.
local function apply(command, name, ...)
  local answer = redis.pcall(command, name, ...)
  if type(answer) == 'table' and answer.err then
    if is_misfit(answer.err) then
      redis.call('DEL', name)
    end
    return redis.call(command, name, ...)
  end
  return answer
end

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- What cannot be read is left to the database's side, which looks at it soon.
local function set_aside(id, where)
  local aside = key('core:set_aside')
  if apply('HLEN', aside) < MAX_SET_ASIDE then
    redis.call('HSET', aside, string.sub(id, 1, MAX_NAME_BYTES), where)
  end
end

-- Workers that were told another epoch speak of jobs that Redis has lost since.
local function is_stale(epoch)
  return redis.call('GET', key('core:epoch')) ~= epoch
end
