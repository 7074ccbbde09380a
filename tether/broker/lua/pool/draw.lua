-- Gives a worker up to `count` jobs that wait in its pools: by priority, pool, least served tenant. Drawing is
-- beginning. A worker that gets fewer stands in the idle sets from then on.
-- ARGV: epoch, worker, count, first draw number, lease (ms), again ('1': the last draw's answer may be lost),
-- busy ('1': the worker runs other jobs), pools...
-- Answers: {'epoch'}, {'revoked'}, or {'ok', ms after which to draw again (0: when woken), {job...}...}
if is_stale(ARGV[1]) then
  return {'epoch'}
end
local worker, count, number, lease = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
-- Heads that this worker may not have are looked past, so many a draw.
local MOST_SKIPPED = 16
-- Entries that were cancelled or moved are thrown away, so many a draw.
local MOST_DISCARDED = 256
-- A job that must run alone waits so long for a worker that is idle, then one keeps itself free for it (ms).
local ALONE_PATIENCE = 5000
local RESERVED_LIFE = 30000
-- An idle worker draws every few seconds; one that does not for so long is not woken any more (ms).
local IDLE_LIFE = 60000

local now = now_ms()
local busy = ARGV[7] == '1'
local answer = {'ok', 0}
local skipped, discarded = 0, 0
local is_full = false

local was_woken = redis.call('ZREM', leases, 'w ' .. worker) == 1
if is_revoked(worker) then
  local pool = was_woken and redis.call('HGET', key('core:woken'), worker)
  redis.call('HDEL', key('core:woken'), worker)
  leave_idle(worker)
  if pool then
    wake_one(pool, now, worker)
  end
  return {'revoked'}
end
if was_woken then
  redis.call('HDEL', key('core:woken'), worker)
end

-- Who draws lives: what was taken from it was not lost by a death, whether it knew of it or not.
local given_up = redis.call('HGETALL', key('given_up:' .. worker))
if #given_up > 0 then
  redis.call('DEL', key('given_up:' .. worker))
  for i = 1, #given_up, 2 do
    exonerate(given_up[i], given_up[i + 1])
  end
end

local function soon(ms)
  if answer[2] == 0 or ms < answer[2] then
    answer[2] = math.max(1, ms)
  end
end

-- Adds a job to the answer, with the tokens that former attempts made.
local function tell(job, id)
  local made = {}
  if job[5] ~= '0' then
    local first = integer(tonumber(job[4]) * RUN_STEP)
    for _, entry in ipairs(redis.call('XRANGE', stream_of(id), first, '+')) do
      if entry[2][2] == 'delta' then
        made[#made + 1] = entry[2][4]
      end
    end
  end
  table.insert(job, 1, id)
  job[#job + 1] = made
  answer[#answer + 1] = job
  is_full = is_full or job[10] == '1'
end

local function tell_again(id)
  tell(redis.call('HMGET', job_of(id), 'dispatch', 'attempt', 'draw', 'run', 'offset', 'pool', 'tenant', 'deadline',
    'alone', 'lossy', 'deaths', 'cancel', 'body'), id)
end

if ARGV[6] == '1' then
  local drawn = redis.call('HGETALL', drawn_of(worker))
  local newest = number
  for i = 1, #drawn, 2 do
    local its_number = tonumber(drawn[i + 1])
    if its_number >= number then
      tell_again(drawn[i])
      redis.call('ZADD', leases, now + lease, 'j ' .. drawn[i])
      newest = math.max(newest, its_number + 1)
    end
  end
  number = newest
end

-- 'take', 'skip' or 'discard'; and the job, for the first
local function judge(id, ticket)
  local name = job_of(id)
  local job = redis.call('HMGET', name, 'state', 'ticket', 'deadline', 'deaths', 'avoid', 'avoid_until', 'placed_at', 'reserved',
    'reserved_until', 'dispatch', 'attempt', 'run', 'offset', 'n', 'cost', 'weight', 'boot', 'lossy', 'pool', 'tenant', 'body')
  if job[1] ~= WAITING or job[2] ~= ticket then
    return 'discard'
  end
  if job[3] ~= '0' and tonumber(job[3]) <= now then
    write_outcome(id, 'expired', now)
    close(id, 'expired', now)
    return 'discard'
  end
  if job[5] == worker and tonumber(job[6]) > now then
    soon(tonumber(job[6]) - now)
    return 'skip'
  end
  if tonumber(job[4]) >= DEATHS_BEFORE_ALONE and (busy or #answer > 2) then
    local is_reserved = job[8] and job[8] ~= '' and tonumber(job[9]) > now
    if not is_reserved and tonumber(job[7]) + ALONE_PATIENCE <= now then
      redis.call('HSET', name, 'reserved', worker, 'reserved_until', integer(now + RESERVED_LIFE))
      is_reserved, job[8] = true, worker
    end
    if is_reserved and job[8] == worker then
      is_full = true
    end
    soon(1000)
    return 'skip'
  end
  return 'take', job
end

local boot = redis.call('GET', key('core:restarts')) or '0'

local function take(id, job, pool, priority, tenant)
  local name = job_of(id)
  local dispatch, run, offset = job[10], job[12], job[13]
  local attempt, draw, n = integer(tonumber(job[11]) + 1), worker .. ':' .. integer(number), tonumber(job[14]) + 1
  local lossy = (job[18] == '1' or job[17] ~= boot) and '1' or '0'
  local alone = tonumber(job[4]) >= DEATHS_BEFORE_ALONE and '1' or '0'
  redis.call('HSET', name, 'state', RUNNING, 'attempt', attempt, 'draw', draw, 'worker', worker, 'n', integer(n),
    'fence', fence(dispatch, attempt, draw), 'boot', boot, 'lossy', lossy, 'alone', alone)
  redis.call('ZADD', leases, now + lease, 'j ' .. id)
  redis.call('HSET', drawn_of(worker), id, integer(number))
  say(id, tonumber(run), tonumber(offset), n, 'started', '{"attempt":' .. attempt .. ',"dispatch":' .. dispatch .. '}')
  number = number + 1
  local cost = tonumber(job[15]) / tonumber(job[16])
  local charged = tonumber(redis.call('ZINCRBY', tenants_of(pool, priority), cost, tenant))
  redis.call('HSET', served_of(pool, priority), 't:' .. tenant, charged, 'floor', charged - cost)
  tell({dispatch, attempt, draw, run, offset, job[19], job[20], job[3], alone, lossy, job[4], '', job[21]}, id)
end

-- Takes the next job of a tenant. Answers whether there was one.
local function draw_of_tenant(pool, priority, tenant)
  local tenants = tenants_of(pool, priority)
  local list = tenants .. ':' .. tenant
  local i = 0
  while not is_full and skipped < MOST_SKIPPED and discarded < MOST_DISCARDED do
    local entry = redis.call('LINDEX', list, i)
    if not entry then
      if i == 0 then
        redis.call('ZREM', tenants, tenant)
      end
      return false
    end
    local id, ticket = string.match(entry, '^(.+) (%d+)$')
    local verdict, job = 'discard', nil
    if id then
      verdict, job = judge(id, ticket)
    end
    if verdict == 'skip' then
      skipped = skipped + 1
      i = i + 1
    else
      if i == 0 then
        redis.call('LPOP', list)
      else
        redis.call('LREM', list, 1, entry)
      end
      if verdict == 'take' then
        take(id, job, pool, priority, tenant)
        if redis.call('EXISTS', list) == 0 then
          redis.call('ZREM', tenants, tenant)
        end
        return true
      end
      discarded = discarded + 1
    end
  end
  return false
end

local function draw_of_pool(pool, priority)
  while #answer - 2 < count and not is_full do
    local found = false
    for _, tenant in ipairs(redis.call('ZRANGE', tenants_of(pool, priority), 0, MOST_SKIPPED - 1)) do
      if draw_of_tenant(pool, priority, tenant) then
        found = true
        break
      end
    end
    if not found then
      return
    end
  end
end

-- Another pool comes first each time, or one that is never empty would starve the others.
local pool_count, first = #ARGV - 7, number
for _, priority in ipairs({'interactive', 'standard', 'batch'}) do
  for i = 0, pool_count - 1 do
    draw_of_pool(ARGV[8 + (first + i) % pool_count], priority)
  end
end

if discarded == MOST_DISCARDED then
  soon(1)
end
local pools = table.concat(ARGV, ' ', 8)
if #answer - 2 >= count or is_full then
  leave_idle(worker)
else
  if redis.call('GET', key('idle:' .. worker)) ~= pools then
    leave_idle(worker)
    for i = 8, #ARGV do
      redis.call('SADD', idle_of(ARGV[i]), worker)
    end
  end
  redis.call('SET', key('idle:' .. worker), pools, 'PX', IDLE_LIFE)
end
return answer
