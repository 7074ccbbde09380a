-- What a job's stream is told.

-- Positions in the stream: ids are <run * RUN_STEP + end offset>-<n>.
local RUN_STEP = 4294967296

-- Adds an event to a stream. Returns false, having written nothing, where the stream stands further or is none: a
-- script that can give up then begins with this.
local function say_at(id, entry, kind, data)
  local answer = redis.pcall('XADD', stream_of(id), entry, 'e', kind, 'd', data)
  if type(answer) == 'table' then
    if not is_misfit(answer.err) then
      redis.call('XADD', stream_of(id), entry, 'e', kind, 'd', data)
    end
    return false
  end
  return true
end

local function say(id, run, offset, n, kind, data)
  return say_at(id, integer(run * RUN_STEP + offset) .. '-' .. integer(n), kind, data)
end

-- The last event of a stream, once. A stream that does not take it is begun anew with it: readers find the rest in the
-- database.
local function say_the_end(id, kind, data)
  local name = job_of(id)
  local run, offset, n, said = read(name, 'run', 'offset', 'n', 'said')
  if said ~= '1' then
    run, offset, n = whole(run, MAX_RUN) or 0, whole(offset, MAX_TOKENS) or 0, (whole(n, MAX_INTEGER - 1) or 0) + 1
    redis.call('HSET', name, 'n', integer(n), 'said', '1')
    if not say(id, run, offset, n, kind, data) then
      redis.call('DEL', stream_of(id))
      say(id, run, offset, n, kind, data)
    end
  end
end

local function failure(state, code)
  return '{"state":"' .. state .. '","code":"' .. code .. '"}'
end
