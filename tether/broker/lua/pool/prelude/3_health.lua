-- Which workers fail what others do. Told from the ends that the scripts write, since a broken worker cannot be asked:
-- of each worker and pool a record is kept while its attempts fail one after another, and any success removes it. After
-- so many different jobs the worker is held: it gets one job of the pool at a time, with growing pauses.

-- In a table, since a script has no room for so many local names.
local HEALTH = {
  -- Different jobs in a row that a worker failed, until it is held where others succeed meanwhile; pauses between two jobs
  -- of a worker that is held (ms). The settings of the orchestrator are in core:health.
  MAX_FAILURES = 5,
  FIRST_PAUSE = 1000,
  MAX_PAUSE = 30000,
  -- Where nobody succeeds, it may be the jobs: then it takes so many times as many.
  UNDECIDED = 2,
  -- Or several that failed so often each, with so many times as many attempts: few jobs would use up theirs before that.
  UNDECIDED_TRIES = 3,
  UNDECIDED_ATTEMPTS = 2,
  -- Greatest of what may be set.
  MOST_FAILURES = 100,
  MOST_PAUSE = 3600000,
  -- Tenants whose jobs a held worker failed are named: others' jobs it still gets, unless they are more than these.
  MAX_FAILED_TENANTS = 8,
  -- So long a record, and the last success of a worker, say something (ms).
  LIFE = 3600000,
}

local function health_of(worker_id)
  return key('health:' .. worker_id)
end

local function succeeded_in(pool)
  return key('pool:' .. pool .. ':succeeded')
end

local function is_among(list, text)
  for i = 1, #list do
    if list[i] == text then
      return true
    end
  end
  return false
end

-- The record of a worker's failures in a row, or nil.
local function read_health(text, now)
  if not text then
    return nil
  end
  local is_read, record = pcall(cjson.decode, text)
  if not is_read or type(record) ~= 'table' or type(record.jobs) ~= 'table' or type(record.tenants) ~= 'table'
      or type(record.since) ~= 'number' or type(record.at) ~= 'number' or type(record.pause) ~= 'number'
      or type(record.until_ms) ~= 'number' or type(record.probe) ~= 'string' or record.at + HEALTH.LIFE <= now then
    return nil
  end
  return record
end

-- Workers with records by which they are held, by when they last failed: whoever places jobs reads those alone.
local function held_workers()
  return key('core:held')
end

local function write_health(worker_id, pool, record)
  apply('HSET', health_of(worker_id), pool, cjson.encode(record))
  redis.call('PEXPIRE', health_of(worker_id), HEALTH.LIFE)
  if record.pause > 0 then
    apply('ZADD', held_workers(), record.at, worker_id)
    apply('ZREMRANGEBYSCORE', held_workers(), '-inf', '(' .. integer(record.at - HEALTH.LIFE))
  end
end

-- Whether a worker with this record may get no job of any tenant but one at a time, as it failed those of several while
-- others succeeded.
local function is_held_for_all(record)
  return record.pause > 0 and (#record.tenants > HEALTH.MAX_FAILED_TENANTS or #record.tenants > 1 and record.others == true)
end

local function is_held_for(record, tenant)
  return record.pause > 0 and (is_held_for_all(record) or is_among(record.tenants, tenant))
end

-- Whether it must still wait. A clock that was set back makes no pause longer.
local function is_pausing(record, now)
  return record.until_ms > now and record.until_ms <= now + record.pause
end

-- Whether another worker had a success in the pool since then.
local function have_others_succeeded(pool, worker_id, since)
  local newest = apply('ZREVRANGE', succeeded_in(pool), 0, 1, 'WITHSCORES')
  for i = 1, #newest, 2 do
    if newest[i] ~= worker_id and tonumber(newest[i + 1]) >= since then
      return true
    end
  end
  return false
end

-- Notes that an attempt failed for a reason that may be the worker's. Returns whether a held worker had that job alone.
local function note_failed(worker_id, pool, tenant, id, code, now)
  local failures, first_pause, max_pause =
    unpack(apply('HMGET', key('core:health'), 'failures', 'pause', 'max_pause'))
  failures = whole(failures, HEALTH.MOST_FAILURES) or HEALTH.MAX_FAILURES
  first_pause = whole(first_pause, HEALTH.MOST_PAUSE) or HEALTH.FIRST_PAUSE
  max_pause = whole(max_pause, HEALTH.MOST_PAUSE) or HEALTH.MAX_PAUSE
  local record = read_health(apply('HGET', health_of(worker_id), pool), now)
    or {since = now, pause = 0, until_ms = 0, probe = '', count = 0, others = false, jobs = {}, tenants = {}}
  record.at, record.code, record.count = now, code, (tonumber(record.count) or 0) + 1
  if not is_among(record.jobs, id) and #record.jobs < failures * HEALTH.UNDECIDED then
    record.jobs[#record.jobs + 1] = id
  end
  if not is_among(record.tenants, tenant) and #record.tenants <= HEALTH.MAX_FAILED_TENANTS then
    record.tenants[#record.tenants + 1] = tenant
  end
  record.others = have_others_succeeded(pool, worker_id, record.since)
  local was_probe = record.pause > 0 and record.probe == id
  if record.pause > 0 then
    -- What ran already when it was held says nothing new.
    if was_probe then
      record.pause = math.max(1, math.min(max_pause, record.pause * 2))
      record.probe, record.until_ms = '', now + record.pause
    end
  elseif #record.jobs >= failures * (record.others and 1 or HEALTH.UNDECIDED)
      or #record.jobs > 1 and record.count
        >= math.max(failures * HEALTH.UNDECIDED_ATTEMPTS, #record.jobs * HEALTH.UNDECIDED_TRIES) then
    record.pause = math.max(1, first_pause)
    record.until_ms = now + record.pause
  end
  write_health(worker_id, pool, record)
  return was_probe
end

-- The code of an error that may be the worker's; nil where it says that the request is to blame.
local function blamed_code(error)
  local is_read, reason = pcall(cjson.decode, error)
  if not is_read or type(reason) ~= 'table' then
    return ''
  elseif reason.retryable ~= true then
    return nil
  end
  local code = reason.code
  return type(code) == 'string' and #code <= 64 and string.find(code, '^[%w_]+$') and code or ''
end

local function note_succeeded(worker_id, pool, now)
  if apply('HDEL', health_of(worker_id), pool) == 1 and redis.call('EXISTS', health_of(worker_id)) == 0 then
    apply('ZREM', held_workers(), worker_id)
  end
  apply('ZADD', succeeded_in(pool), now, worker_id)
  redis.call('PEXPIRE', succeeded_in(pool), HEALTH.LIFE)
end

-- Whether a worker would be given a job of this tenant now, or of any where none is named.
local function would_get(worker_id, pool, tenant, now)
  local record = read_health(apply('HGET', health_of(worker_id), pool), now)
  if not record or not (tenant and is_held_for(record, tenant) or is_held_for_all(record)) then
    return true
  end
  return not is_pausing(record, now) and read(job_of(record.probe), 'state') ~= RUNNING
end

-- Whether a worker is held from no job of the pool.
local function is_well(worker_id, pool, now)
  local record = read_health(apply('HGET', health_of(worker_id), pool), now)
  return not record or record.pause == 0
end

-- Workers that failed a job are named in a list that spaces divide.
local function is_listed(list, worker_id)
  return list ~= nil and list ~= false and list ~= ''
    and string.find(' ' .. list .. ' ', ' ' .. worker_id .. ' ', 1, true) ~= nil
end

-- Which workers draw from a pool, by when they last did.
local function drawing_from(pool)
  return key('pool:' .. pool .. ':drawing')
end

local function note_drawing(boot_id, worker_id, pools, now)
  -- It is noted every few seconds, and kept for longer than anybody is believed to run what it drew without renewing a
  -- lease (ms).
  local DRAWING_PAUSE, DRAWING_LIFE = 5000, 600000
  local noted, text = key('drawing:' .. boot_id), table.concat(pools, ' ')
  if apply('GET', noted) == text then
    return
  end
  redis.call('SET', noted, text, 'PX', DRAWING_PAUSE)
  for _, pool in ipairs(pools) do
    local drawing, succeeded = drawing_from(pool), succeeded_in(pool)
    apply('ZREMRANGEBYSCORE', drawing, '-inf', '(' .. integer(now - DRAWING_LIFE))
    apply('ZREMRANGEBYSCORE', succeeded, '-inf', '(' .. integer(now - HEALTH.LIFE))
    apply('ZADD', drawing, now, worker_id)
    redis.call('PEXPIRE', drawing, DRAWING_LIFE)
  end
end
