-- Gives a worker up to `count` jobs that wait in its pools: by priority, pool, least served tenant. Drawing is
-- beginning. A worker that gets fewer stands in the idle sets from then on.
-- ARGV: epoch, worker, count, first draw number, lease (ms), again ('1': the last draw's answer may be lost),
-- busy ('1': the worker runs other jobs), how many fields, that many names of fields of a job's hash, pools...
-- Returns: {'epoch'}, {'revoked'}, or {'ok', ms after which to draw again (0: when woken), drawn...}. Each drawn is
-- {job, dispatch, attempt, draw, run, offset, alone, lossy, deaths, {the fields; nil where the hash has none},
-- {data of the deltas that former attempts wrote}}.
if is_stale(ARGV[1]) then
  return {'epoch'}
end
local FIRST_FIELD = 9
-- So many fields and pools are looked at in one draw.
local MAX_ASKED_FOR = 1024
local _, worker, count, number, lease, again, busy, field_count = unpack(ARGV, 1, 8)
count, number, lease, busy = whole(count, MAX_ASKED_FOR), whole(number, MAX_INTEGER), whole(lease, MAX_LIFE), busy == '1'
field_count = whole(field_count, #ARGV - FIRST_FIELD + 1)
if not (count and number and lease and lease > 0 and field_count and field_count > 0)
    or not is_word(worker) or #ARGV > MAX_ASKED_FOR then
  return refuse('draw: a worker, counts, a lease in ms and names of fields are needed')
end
local FIRST_POOL = FIRST_FIELD + field_count
for i = FIRST_POOL, #ARGV do
  if not is_word(ARGV[i]) then
    return refuse('draw: ' .. i .. ' is no name of a pool')
  end
end
-- Heads that this worker may not have are looked past, so many a draw.
local MAX_SKIPPED = 16
-- Entries that were cancelled or moved are thrown away, so many a draw.
local MAX_DISCARDED = 256
-- A job that must run alone waits so long for a worker that is idle, then one keeps itself free for it (ms).
local ALONE_PATIENCE = 5000
local RESERVED_LIFE = 30000
-- An idle worker draws every few seconds; one that does not for so long is not woken any more (ms).
local IDLE_LIFE = 60000

-- Where Redis is at its memory limit, a worker that runs something draws no more: what runs needs the memory. One that
-- runs nothing draws, so that there is always something that can end.
local FULL_PAUSE = 500
local is_kept_short = busy and again ~= '1' and count > 0 and is_at_memory_limit()
local now = now_ms()
-- That it asks is noted of each of its pools, whatever it is given.
pass_memory_limit()
local has_lost_trust = is_revoked(worker)
if count > 0 and not has_lost_trust then
  local asked = {}
  for i = FIRST_POOL, #ARGV do
    asked[#asked + 1] = now
    asked[#asked + 1] = 'd ' .. worker_of(worker) .. ' ' .. ARGV[i]
  end
  if #asked > 0 then
    apply('ZADD', seen_doing(), unpack(asked))
  end
end
if is_kept_short then
  return {'ok', FULL_PAUSE}
end

local answer = {'ok', 0}
local skipped, discarded = 0, 0
local is_full = false

local was_woken = apply('ZREM', leases, 'w ' .. worker) == 1
if has_lost_trust then
  local pool = was_woken and apply('HGET', key('core:woken'), worker)
  apply('HDEL', key('core:woken'), worker)
  leave_idle(worker)
  if pool then
    wake_one(pool, now, worker)
  end
  return {'revoked'}
end
if was_woken then
  apply('HDEL', key('core:woken'), worker)
end

-- Who draws lives: what was taken from it was not lost by a death, whether it knew of it or not.
local given_up = apply('HGETALL', key('given_up:' .. worker))
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
local function tell(id, dispatch, attempt, draw, run, offset, alone, lossy, deaths, fields)
  local made = {}
  if offset > 0 then
    for _, entry in ipairs(apply('XRANGE', stream_of(id), integer(run * RUN_STEP), '+')) do
      if entry[2][2] == 'delta' then
        made[#made + 1] = entry[2][4]
      end
    end
  end
  answer[#answer + 1] = {id, integer(dispatch), integer(attempt), draw, integer(run), integer(offset), alone, lossy,
    integer(deaths), fields, made}
  is_full = is_full or alone == '1'
end

local function tell_again(id)
  local name = job_of(id)
  local state, dispatch, attempt, draw, run, offset, alone, lossy, deaths =
    read(name, 'state', 'dispatch', 'attempt', 'draw', 'run', 'offset', 'alone', 'lossy', 'deaths')
  dispatch, attempt, run, offset, deaths = whole(dispatch, MAX_TOKENS), whole(attempt, MAX_TOKENS), whole(run, MAX_RUN),
    whole(offset, MAX_TOKENS), whole(deaths, MAX_TOKENS)
  if state ~= RUNNING or not (dispatch and attempt and run and offset and deaths) then
    apply('HDEL', drawn_of(worker), id)
    return
  end
  apply('ZADD', leases, now + lease, 'j ' .. id)
  tell(id, dispatch, attempt, draw, run, offset, alone, lossy, deaths,
    redis.call('HMGET', name, unpack(ARGV, FIRST_FIELD, FIRST_POOL - 1)))
end

if again == '1' then
  local drawn = apply('HGETALL', drawn_of(worker))
  local newest = number
  for i = 1, #drawn, 2 do
    local its_number = whole(drawn[i + 1], MAX_INTEGER)
    if its_number and its_number >= number then
      tell_again(drawn[i])
      newest = math.max(newest, its_number + 1)
    end
  end
  number = newest
end

local boot = apply('GET', key('core:restarts')) or '0'

local function pop(list, i, entry)
  if i == 0 then
    redis.call('LPOP', list)
  else
    redis.call('LREM', list, 1, entry)
  end
end

-- Takes the job of the entry that stands at `i`, unless it must wait or is none any more. Returns 'taken', 'skipped' or
-- 'discarded'.
local function draw_entry(pool, priority, tenant, list, i, entry)
  local id, ticket = string.match(entry, '^(.+) (%d+)$')
  if not id then
    pop(list, i, entry)
    set_aside(entry, 'draw')
    return 'discarded'
  end
  local name = job_of(id)
  -- All in one command, which is cheaper than two: the fields that are asked for stand behind those that are named here.
  local values = redis.pcall('HMGET', name,
    'state', 'ticket', 'deadline', 'deaths', 'avoid', 'avoid_until', 'placed_at', 'reserved', 'reserved_until',
    'dispatch', 'attempt', 'run', 'offset', 'n', 'cost', 'weight', 'boot', 'lossy',
    unpack(ARGV, FIRST_FIELD, FIRST_POOL - 1))
  local state, job_ticket, deadline, deaths, avoid, avoid_until, placed_at, reserved, reserved_until,
    dispatch, attempt, run, offset, n, cost, weight, job_boot, lossy = unpack(values)
  if not is_state(state) then
    -- Redis has lost it, or it ended long ago: the database knows.
    pop(list, i, entry)
    set_aside(id, 'draw')
    return 'discarded'
  end
  if state ~= WAITING or job_ticket ~= ticket then
    pop(list, i, entry)
    return 'discarded'
  end
  deadline, deaths, placed_at = whole(deadline, MAX_INTEGER), whole(deaths, MAX_TOKENS), whole(placed_at, MAX_INTEGER)
  dispatch, attempt, run, offset = whole(dispatch, MAX_TOKENS), whole(attempt, MAX_TOKENS - 1), whole(run, MAX_RUN),
    whole(offset, MAX_TOKENS)
  n, cost, weight = whole(n, MAX_INTEGER - 1), whole(cost, MAX_INTEGER), share(weight)
  if not (deadline and deaths and placed_at and dispatch and attempt and run and offset and n and cost and weight) then
    pop(list, i, entry)
    give_up(id, now, 'draw')
    return 'discarded'
  end
  if deadline > 0 and deadline <= now then
    write_outcome(id, 'expired', now)
    close(id, 'expired', now)
    pop(list, i, entry)
    return 'discarded'
  end
  if avoid == worker then
    avoid_until = whole(avoid_until, MAX_INTEGER)
    if avoid_until and avoid_until > now then
      soon(avoid_until - now)
      return 'skipped'
    end
  end
  local must_be_alone = deaths >= DEATHS_BEFORE_ALONE
  if must_be_alone and (busy or #answer > 2) then
    reserved_until = whole(reserved_until, MAX_INTEGER)
    local is_reserved = reserved and reserved ~= '' and reserved_until and reserved_until > now
    if not is_reserved and placed_at + ALONE_PATIENCE <= now then
      redis.call('HSET', name, 'reserved', worker, 'reserved_until', integer(now + RESERVED_LIFE))
      is_reserved, reserved = true, worker
    end
    if is_reserved and reserved == worker then
      is_full = true
    end
    soon(1000)
    return 'skipped'
  end
  pop(list, i, entry)
  local draw, alone, dispatched = worker .. ':' .. integer(number), must_be_alone and '1' or '0', integer(dispatch)
  local attempted = integer(attempt + 1)
  n = n + 1
  local started = '{"attempt":' .. attempted .. ',"dispatch":' .. dispatched .. '}'
  if not say(id, run, offset, n, 'started', started) then
    give_up(id, now, 'draw')
    return 'discarded'
  end
  lossy = (lossy == '1' or job_boot ~= boot) and '1' or '0'
  redis.call('HSET', name, 'state', RUNNING, 'attempt', attempted, 'draw', draw, 'worker', worker, 'n', integer(n),
    'fence', fence(dispatched, attempted, draw), 'boot', boot, 'lossy', lossy, 'alone', alone)
  apply('ZADD', leases, now + lease, 'j ' .. id)
  apply('HSET', drawn_of(worker), id, integer(number))
  number = number + 1
  cost = cost / weight
  local charged = tonumber(apply('ZINCRBY', tenants_of(pool, priority), cost, tenant))
  apply('HSET', served_of(pool, priority), 't:' .. tenant, charged, 'floor', charged - cost)
  local fields = {unpack(values, #values - (FIRST_POOL - FIRST_FIELD) + 1)}
  tell(id, dispatch, attempt + 1, draw, run, offset, alone, lossy, deaths, fields)
  return 'taken'
end

-- Takes the next job of a tenant. Returns whether there was one.
local function draw_of_tenant(pool, priority, tenant)
  local tenants = tenants_of(pool, priority)
  local list = tenants .. ':' .. tenant
  local i = 0
  while not is_full and skipped < MAX_SKIPPED and discarded < MAX_DISCARDED do
    local entry = apply('LINDEX', list, i)
    if not entry then
      if i == 0 then
        redis.call('ZREM', tenants, tenant)
      end
      return false
    end
    local became = draw_entry(pool, priority, tenant, list, i, entry)
    if became == 'taken' then
      if redis.call('EXISTS', list) == 0 then
        redis.call('ZREM', tenants, tenant)
      end
      return true
    elseif became == 'skipped' then
      skipped = skipped + 1
      i = i + 1
    else
      discarded = discarded + 1
    end
  end
  return false
end

local function draw_of_pool(pool, priority)
  while #answer - 2 < count and not is_full do
    local found = false
    for _, tenant in ipairs(apply('ZRANGE', tenants_of(pool, priority), 0, MAX_SKIPPED - 1)) do
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
local pool_count, first = #ARGV - FIRST_POOL + 1, number
for _, priority in ipairs({'interactive', 'standard', 'batch'}) do
  for i = 0, pool_count - 1 do
    draw_of_pool(ARGV[FIRST_POOL + (first + i) % pool_count], priority)
  end
end

if discarded == MAX_DISCARDED then
  soon(1)
end
local pools = table.concat(ARGV, ' ', FIRST_POOL)
if #answer - 2 >= count or is_full then
  leave_idle(worker)
else
  if apply('GET', key('idle:' .. worker)) ~= pools then
    leave_idle(worker)
    for i = FIRST_POOL, #ARGV do
      apply('SADD', idle_of(ARGV[i]), worker)
    end
  end
  redis.call('SET', key('idle:' .. worker), pools, 'PX', IDLE_LIFE)
end
return answer
