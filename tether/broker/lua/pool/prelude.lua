-- Shared by every script of pool jobs. KEYS[1] is <namespace>:core:leases; all other keys live in the same slot.
local prefix = string.sub(KEYS[1], 1, -13)
local leases = KEYS[1]

local VERSION = '1'
-- A woken worker that does not draw for so long is taken out of the idle sets, and the next is woken (ms).
local WAKE_LIFE = 500
-- Life of a bell that nobody listens to (ms).
local BELL_LIFE = 60000
-- So many idle workers are looked at for one that lives.
local MOST_LOOKED_AT = 8
-- The worker that lost a job is not given it again for so long, where others may be had (ms).
local AVOID_LIFE = 2000
-- Deaths of its workers after which a job runs alone.
local DEATHS_BEFORE_ALONE = 2
-- Positions in the stream: ids are <run * RUN_STEP + end offset>-<n>.
local RUN_STEP = 4294967296

local WAITING = 'placed'
local RUNNING = 'running'

local function key(name)
  return prefix .. ':' .. name
end

local function job_of(id)
  return key('job:' .. id)
end

local function stream_of(id)
  return key('stream:' .. id)
end

local function tenants_of(pool, priority)
  return key('pool:' .. pool .. ':' .. priority)
end

local function served_of(pool, priority)
  return key('served:' .. pool .. ':' .. priority)
end

local function idle_of(pool)
  return key('pool:' .. pool .. ':idle')
end

local function drawn_of(worker)
  return key('drawn:' .. worker)
end

local function integer(number)
  return string.format('%.0f', number)
end

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- Workers that were told another epoch speak of jobs that Redis has lost since.
local function is_stale(epoch)
  return redis.call('GET', key('core:epoch')) ~= epoch
end

-- Whether the key of a worker, by its boot id, was revoked.
local function is_revoked(worker)
  return redis.call('SISMEMBER', key('core:revoked'), string.match(worker, '^[^.]*')) == 1
end

local function fence(dispatch, attempt, draw)
  return dispatch .. '|' .. attempt .. '|' .. draw
end

local function say(id, run, offset, n, kind, data)
  redis.call('XADD', stream_of(id), integer(run * RUN_STEP + offset) .. '-' .. integer(n), 'e', kind, 'd', data)
end

-- Takes a worker out of all idle sets that it stands in.
local function leave_idle(worker)
  local standing = key('idle:' .. worker)
  local pools = redis.call('GET', standing)
  if pools then
    for pool in string.gmatch(pools, '%S+') do
      redis.call('SREM', idle_of(pool), worker)
    end
    redis.call('DEL', standing)
  end
end

local function ring(worker, pool, now)
  leave_idle(worker)
  redis.call('SREM', idle_of(pool), worker)
  local bell = key('wake:' .. worker)
  redis.call('RPUSH', bell, 'draw')
  redis.call('PEXPIRE', bell, BELL_LIFE)
  redis.call('ZADD', leases, now + WAKE_LIFE, 'w ' .. worker)
  redis.call('HSET', key('core:woken'), worker, pool)
end

-- Wakes one idle worker of the pool, another than `avoid` where there is one.
local function wake_one(pool, now, avoid)
  local idle, last = idle_of(pool), nil
  for _ = 1, MOST_LOOKED_AT do
    -- One at a time: asked for several, Redis answers a small set in its own order.
    local worker = redis.call('SRANDMEMBER', idle)
    if not worker then
      break
    elseif redis.call('EXISTS', key('idle:' .. worker)) == 0 then
      redis.call('SREM', idle, worker)
    elseif worker ~= avoid then
      return ring(worker, pool, now)
    else
      last = worker
    end
  end
  if last then
    ring(last, pool, now)
  end
end

local function wake_all(pool, now)
  for _, worker in ipairs(redis.call('SMEMBERS', idle_of(pool))) do
    ring(worker, pool, now)
  end
end

-- Lets a job wait in its pool: at the tenant's end, or at its head where it was there before what waits.
-- A tenant that returns from idle gets no credit for the time away (Virtual Token Counter, OSDI 2024).
local function let_wait(id, ticket, pool, priority, tenant, to_head)
  local tenants = tenants_of(pool, priority)
  redis.call(to_head and 'LPUSH' or 'RPUSH', tenants .. ':' .. tenant, id .. ' ' .. ticket)
  if not redis.call('ZSCORE', tenants, tenant) then
    local served = redis.call('HMGET', served_of(pool, priority), 't:' .. tenant, 'floor')
    local counter = tonumber(served[1] or '0')
    local least = redis.call('ZRANGE', tenants, 0, 0, 'WITHSCORES')
    redis.call('ZADD', tenants, math.max(counter, tonumber(least[2] or served[2] or '0')), tenant)
    redis.call('SADD', key('core:pools'), pool)
  end
end

local function charge(pool, priority, tenant, tokens)
  if tokens > 0 then
    redis.call('HINCRBYFLOAT', served_of(pool, priority), 't:' .. tenant, tokens)
    redis.call('ZADD', tenants_of(pool, priority), 'XX', 'INCR', tokens, tenant)
  end
end

-- Ends a running attempt's hold of the job.
local function let_go(id, worker)
  redis.call('ZREM', leases, 'j ' .. id)
  redis.call('HDEL', drawn_of(worker), id)
end

-- Hands a job back to the database. `job` holds dispatch, attempt, draw, worker, run, offset, deaths.
local function add_outcome(id, kind, now, error, input, reason, job)
  redis.call('XADD', key('core:outcomes'), '*', 'v', VERSION, 'job', id, 'kind', kind,
    'dispatch', job[1], 'attempt', job[2], 'draw', job[3], 'worker', job[4], 'run', job[5], 'offset', job[6],
    'deaths', job[7], 'at', integer(now), 'error', error, 'input', input, 'reason', reason)
end

local function write_outcome(id, kind, now, error)
  local job = redis.call('HMGET', job_of(id), 'dispatch', 'attempt', 'draw', 'worker', 'run', 'offset', 'deaths')
  add_outcome(id, kind, now, error or '', '0', '', job)
end

-- The last event of a stream, once.
local function say_the_end(id, kind, data)
  local job = redis.call('HMGET', job_of(id), 'run', 'offset', 'n', 'said')
  if job[4] ~= '1' then
    local n = tonumber(job[3]) + 1
    redis.call('HSET', job_of(id), 'n', integer(n), 'said', '1')
    say(id, tonumber(job[1]), tonumber(job[2]), n, kind, data)
  end
end

local function failure(state, code)
  return '{"state":"' .. state .. '","code":"' .. code .. '"}'
end

-- Ends a job that nobody runs any more for a reason that is final: cancelled or expired.
local function close(id, kind, now)
  redis.call('HSET', job_of(id), 'state', kind, 'closed', '1')
  say_the_end(id, 'failed', failure(kind, kind))
end

-- A job's worker is gone, or gives it back: it waits again, where it was, unless somebody wants it ended.
-- Answers what became of it.
local function return_to_pool(id, now, avoid)
  local name = job_of(id)
  local job = redis.call('HMGET', name, 'cancel', 'deadline', 'pool', 'priority', 'tenant', 'ticket', 'run',
    'offset', 'n', 'deaths')
  local ending = job[1]
  if ending == '' and job[2] ~= '0' and tonumber(job[2]) <= now then
    ending = 'expired'
  end
  if ending ~= '' then
    write_outcome(id, ending, now)
    close(id, ending, now)
    return ending
  end
  local ticket, n = integer(tonumber(job[6]) + 1), tonumber(job[9]) + 1
  redis.call('HSET', name, 'state', WAITING, 'ticket', ticket, 'n', integer(n), 'fence', '', 'alone', '0',
    'avoid', avoid, 'avoid_until', integer(now + AVOID_LIFE), 'reserved', '')
  say(id, tonumber(job[7]), tonumber(job[8]), n, 'rerouted', '{}')
  let_wait(id, ticket, job[3], job[4], job[5], true)
  if tonumber(job[10]) >= DEATHS_BEFORE_ALONE then
    wake_all(job[3], now)
  else
    wake_one(job[3], now, avoid)
  end
  return WAITING
end

-- Whose lease ran out and who still speaks was cut off, and not dead: that loss counts no longer.
local function exonerate(id, draw)
  local name = job_of(id)
  if draw ~= '' and redis.call('HGET', name, 'lost') == draw then
    redis.call('HSET', name, 'lost', '')
    redis.call('HINCRBY', name, 'deaths', -1)
  end
end

-- Checks what a worker wants to write, and answers a code: nothing may be written unless it is 'ok'.
local function check(job, id, its_fence, draw, run, offset)
  if not job[1] then
    return 'unknown'
  end
  if job[1] ~= its_fence then
    exonerate(id, draw)
    return 'fenced'
  end
  if tonumber(job[2]) ~= run or tonumber(job[3]) ~= offset then
    return 'offset'
  end
  return 'ok'
end

-- What finish, fail and release begin with. ARGV: epoch, job, dispatch, attempt, draw, run, offset, count, data.
local function read_ending()
  local id, draw, run, offset = ARGV[2], ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
  local job = redis.call('HMGET', job_of(id), 'fence', 'run', 'offset', 'n', 'state', 'worker', 'pool', 'priority', 'tenant',
    'weight', 'deaths')
  local code = check(job, id, fence(ARGV[3], ARGV[4], draw), draw, run, offset)
  return {
    id = id, draw = draw, run = run, state = job[5], worker = job[6], deaths = job[11], job = job, code = code,
    made = tonumber(ARGV[8]), end_offset = offset + tonumber(ARGV[8]), n = tonumber(job[4] or '0'),
    is_its_own = job[1] == fence(ARGV[3], ARGV[4], draw), stands_at = job[3] or '0'
  }
end

-- The last tokens of an attempt that ends. Answers where the stream stands.
local function add_last_tokens(ending)
  if ending.made > 0 then
    local job = ending.job
    ending.n = ending.n + 1
    say(ending.id, ending.run, ending.end_offset, ending.n, 'delta', ARGV[9])
    charge(job[7], job[8], job[9], ending.made / tonumber(job[10]))
  end
  return integer(ending.end_offset)
end
