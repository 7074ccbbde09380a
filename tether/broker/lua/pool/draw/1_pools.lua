-- What is known of this worker and its pools.

local worker_id = worker_of(worker)
local boot, cursor, run, worker_rest =
  unpack(redis.call('MGET', key('core:restarts'), key('cursor:' .. worker), run_of(worker), key('rest:' .. worker_id)))
boot, run, worker_rest = boot or '0', read_run(run, now), whole(worker_rest, MAX_INTEGER) or 0
local PRIORITIES = {'interactive', 'standard', 'batch'}

local function wants_more()
  return #answer - 2 < count and not is_full
end

-- Its pools but those that are paused. It waits for jobs of these too: once they are resumed it is woken.
local open_pools = {unpack(ARGV, FIRST_POOL)}
if #open_pools > 0 and wants_more() and apply('SCARD', key('core:paused')) > 0 then
  local marks = apply('SMISMEMBER', key('core:paused'), unpack(open_pools))
  for i = #open_pools, 1, -1 do
    if marks[i] == 1 then
      table.remove(open_pools, i)
    end
  end
end
local first = number

-- This worker's pools in which jobs wait that must run alone.
local alone_pools = {}
if #open_pools > 0 and wants_more() then
  local marks = apply('SMISMEMBER', key('core:alone'), unpack(open_pools))
  for i = 0, #open_pools - 1 do
    local at = (first + i) % #open_pools
    if marks[at + 1] == 1 then
      alone_pools[#alone_pools + 1] = open_pools[at + 1]
    end
  end
end
-- By pool, what is known of tenants that are apart there; and the one that gets jobs now, in its turn.
local apart, turn_of = {}, nil
for _, pool in ipairs(alone_pools) do
  apart[pool] = read_apart(pool, now)
end
-- Whether the last job that this worker began runs alone.
local is_others_turn = #alone_pools > 0 and redis.call('EXISTS', key('turn:' .. worker)) == 1

if #ARGV >= FIRST_POOL and count > 0 then
  note_drawing(worker, worker_id, {unpack(ARGV, FIRST_POOL)}, now)
end

-- Pools from which this worker is held, with its records.
local holds = {}
if #open_pools > 0 and wants_more() then
  for i, text in ipairs(apply('HMGET', health_of(worker_id), unpack(open_pools))) do
    local record = read_health(text, now)
    if record and record.pause > 0 then
      holds[open_pools[i]] = record
      local state, runner = read(job_of(record.probe), 'state', 'worker')
      if is_pausing(record, now) then
        record.is_closed = true
        soon(record.until_ms - now)
      elseif state == RUNNING and runner == worker then
        record.is_closed = true
      end
    end
  end
end

-- Whether this worker may have no job of the pool now: of this tenant, or of any.
local function is_barred(pool, tenant)
  local record = holds[pool]
  return record ~= nil and record.is_closed == true and is_held_for_all(record)
    or record ~= nil and record.is_closed == true and tenant ~= nil and is_held_for(record, tenant)
end

-- One job shows whether it works again: the next comes after that, and after the pause.
local function note_probe(pool, tenant, id)
  local record = holds[pool]
  if record and is_held_for(record, tenant) then
    record.probe, record.until_ms = id, now + record.pause
    write_health(worker_id, pool, record)
    record.is_closed = true
    soon(record.pause)
  end
end

local has_others
do
  -- Who did not draw or renew a lease for so long serves nobody (ms); so many are looked at.
  local LIVING = 15000
  local MAX_OTHERS = 8
  -- By pool, which other workers serve it.
  local others_of = {}

  -- Whether another worker than this and those that failed a job serves the pool.
  has_others = function(pool, failed_on)
    local others = others_of[pool]
    if not others then
      others = {}
      local found = apply('ZREVRANGE', drawing_from(pool), 0, MAX_OTHERS, 'WITHSCORES')
      for i = 1, #found, 2 do
        local other, at = found[i], tonumber(found[i + 1])
        if other ~= worker_id and (at > now - LIVING
            or (tonumber(apply('ZSCORE', seen_doing(), 'r ' .. other) or 0) or 0) > now - LIVING)
            and is_well(other, pool, now) then
          others[#others + 1] = other
        end
      end
      others_of[pool] = others
    end
    for _, other in ipairs(others) do
      if not is_listed(failed_on, other) then
        return true
      end
    end
    return false
  end
end
