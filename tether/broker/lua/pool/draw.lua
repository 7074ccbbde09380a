-- Gives a worker up to `count` jobs that wait in its pools: by priority, pools in turn, least served tenant. Drawing is
-- beginning. A worker that gets fewer stands in the idle sets from then on.
-- One draw takes `count` jobs, passes over MAX_SKIPPED and throws away MAX_DISCARDED entries at most. No lane costs
-- more than MAX_DISCARDED_OF_LANE of these before all others had their turn, and where they do not suffice, the
-- worker's next draw goes on where this one stopped: after one draw for each 32 lanes it has looked into all.
-- ARGV: epoch, worker, count, first draw number, lease (ms), again ('1': the last draw's answer may be lost),
-- busy ('1': the worker runs other jobs), process (a name that no other process has), comes back ('1': it was outranked
-- when it drew last), how many fields, that many names of fields of a job's hash, pools...
-- Returns: {'epoch'}, {'revoked'}, {'outranked', boot counter, '1' where nobody draws with that any more and this worker
-- may count on from there}, or {'ok', ms after which to draw again (0: when woken), drawn...}. Each drawn is
-- {job, dispatch, attempt, draw, run, offset, alone, lossy, deaths, {the fields; nil where the hash has none},
-- {data of the deltas that former attempts wrote}}.
if is_stale(ARGV[1]) then
  return {'epoch'}
end
local FIRST_FIELD = 11
-- So many jobs are drawn at once, and so many fields told of each.
local MAX_COUNT = 1024
local MAX_FIELDS = 64
local _, worker, count, number, lease, again, busy, process, comes_back, field_count = unpack(ARGV, 1, 10)
count, number, lease, busy = whole(count, MAX_COUNT), whole(number, MAX_INTEGER), whole(lease, MAX_LEASE), busy == '1'
field_count = whole(field_count, math.min(#ARGV - FIRST_FIELD + 1, MAX_FIELDS))
if not (count and number and lease and lease > 0 and field_count and field_count > 0)
    or not is_word(worker) or not is_word(process) then
  return refuse('draw: a worker, up to ' .. MAX_COUNT .. ' jobs, a number, a lease of up to a day in ms, a process and 1 to '
    .. MAX_FIELDS .. ' names of fields are needed')
end
local FIRST_POOL = FIRST_FIELD + field_count
if #ARGV - FIRST_POOL + 1 > MAX_ASKED_POOLS then
  return refuse('draw: ' .. #ARGV - FIRST_POOL + 1 .. ' pools are named, and one draw may name ' .. MAX_ASKED_POOLS)
end
for i = FIRST_POOL, #ARGV do
  if not is_word(ARGV[i]) then
    return refuse('draw: ' .. i .. ' is no name of a pool')
  end
end
-- A worker had rather not get what it lost a moment ago: so many heads a draw are passed over for that.
local MAX_SKIPPED = 16
-- So long after it was placed a job waits for another worker than those that failed it (ms).
local OTHERS_PATIENCE = 60000
-- Who did not draw or renew a lease for so long serves nobody (ms); so many are looked at.
local LIVING = 15000
local MAX_OTHERS = 8
-- Entries of jobs that do not wait there any more.
local MAX_DISCARDED = 256
local MAX_DISCARDED_OF_LANE = 8
-- How long a worker may take to draw again after a draw that stopped half-way (ms).
local CURSOR_LIFE = 60000
-- Jobs that must run alone get what is left over. For so long; then one worker of the pool at a time keeps itself free
-- for the next of them, for as long as it draws, and no other while that job runs (ms).
local ALONE_PATIENCE = 5000
local RESERVED_LIFE = 30000
-- After a job alone others come first. So long does a worker at most run one (ms), or they come first once more.
local TURN_LIFE = 3600000
-- An idle worker draws every few seconds; one that does not for so long is not woken any more (ms).
local IDLE_LIFE = 60000

-- Where Redis is at its memory limit, a worker that runs something draws no more: what runs needs the memory. One that
-- runs nothing draws, so that there is always something that can end.
local FULL_PAUSE = 500
local is_kept_short = busy and again ~= '1' and count > 0 and is_at_memory_limit()
local now = now_ms()
pass_memory_limit()
local has_lost_trust = is_revoked(worker)

-- Of the processes that have a worker's key one draws: that of the greatest boot counter, of equal ones the first, for as
-- long as it draws or beats. Returns what the others are answered, and whether the one that draws has the same boot id.
local function outranked()
  local boot = whole(string.match(worker, '%.(%d+)$'), MAX_INTEGER)
  if not boot then
    return nil
  end
  local lead = lead_of(worker)
  local lead_boot, lead_process = string.match(apply('GET', lead) or '', '^(%d+) (%S+)$')
  lead_boot = whole(lead_boot, MAX_INTEGER)
  if lead_boot == boot and lead_process == process then
    if count == 0 then
      redis.call('DEL', lead)
      return nil
    end
  elseif lead_boot and lead_boot >= boot then
    if count > 0 then
      apply('ZADD', seen_doing(), now, 'c ' .. worker_of(worker))
    end
    return {'outranked', integer(lead_boot), '0'}, lead_boot == boot
  elseif not lead_boot then
    -- Announcements with lower numbers count no more, whoever made them.
    local announced = string.match(apply('HGET', key('fleet:order'), worker_of(worker)) or '', '^%d+')
    announced = whole(announced, MAX_INTEGER - 1) or 0
    if announced > boot or comes_back == '1' then
      return {'outranked', integer(math.max(announced, boot)), '1'}
    end
  end
  if count > 0 then
    redis.call('SET', lead, integer(boot) .. ' ' .. process, 'PX', LEAD_LIFE)
  end
end

local answer_of_lower, is_twin
if not has_lost_trust then
  answer_of_lower, is_twin = outranked()
end
if is_twin then
  -- What stands under that boot id, as that it is idle or was woken, is of the one that draws.
  return answer_of_lower
end
-- It is noted whatever the worker is given.
if count > 0 and not has_lost_trust and not answer_of_lower and #ARGV >= FIRST_POOL then
  note_asking(worker, {unpack(ARGV, FIRST_POOL)}, now)
end
if is_kept_short and not has_lost_trust and not answer_of_lower then
  return {'ok', FULL_PAUSE}
end

local answer = {'ok', 0}
local skipped, discarded = 0, 0
local is_full = false

local was_woken = apply('ZREM', leases, 'w ' .. worker) == 1
if was_woken then
  local pool, will_look = apply('HGET', key('core:woken'), worker), false
  apply('HDEL', key('core:woken'), worker)
  for i = FIRST_POOL, #ARGV do
    will_look = will_look or ARGV[i] == pool
  end
  if pool and (has_lost_trust or answer_of_lower or count == 0 or not will_look) then
    leave_idle(worker)
    wake_one(pool, now, worker)
  end
end
if has_lost_trust or answer_of_lower then
  leave_idle(worker)
  return answer_of_lower or {'revoked'}
end

-- Who draws lives: what was taken from it was not lost by a death, whether it knew of it or not.
redis.call('DEL', given_up_by(worker))

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

local boot, cursor = unpack(redis.call('MGET', key('core:restarts'), key('cursor:' .. worker)))
boot = boot or '0'
local pool_count, first = #ARGV - FIRST_POOL + 1, number
local PRIORITIES = {'interactive', 'standard', 'batch'}

local function wants_more()
  return #answer - 2 < count and not is_full
end

-- This worker's pools in which jobs wait that must run alone.
local alone_pools = {}
if pool_count > 0 and wants_more() then
  local marks = apply('SMISMEMBER', key('core:alone'), unpack(ARGV, FIRST_POOL))
  for i = 0, pool_count - 1 do
    local at = (first + i) % pool_count
    if marks[at + 1] == 1 then
      alone_pools[#alone_pools + 1] = ARGV[FIRST_POOL + at]
    end
  end
end
-- Says that the last job that this worker began runs alone.
local turn = key('turn:' .. worker)
local is_others_turn = #alone_pools > 0 and redis.call('EXISTS', turn) == 1

local worker_id = worker_of(worker)
if pool_count > 0 and count > 0 then
  note_drawing(worker, worker_id, {unpack(ARGV, FIRST_POOL)}, now)
end

-- Pools from which this worker is held, with its records.
local holds = {}
if pool_count > 0 and wants_more() then
  for i, text in ipairs(apply('HMGET', health_of(worker_id), unpack(ARGV, FIRST_POOL))) do
    local record = read_health(text, now)
    if record and record.pause > 0 then
      holds[ARGV[FIRST_POOL + i - 1]] = record
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

-- By pool, which other workers serve it.
local others_of = {}

-- Whether another worker than this and those that failed a job serves the pool.
local function has_others(pool, failed_on)
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

local function note_quarantine(pool, ...)
  apply('HSET', quarantine_of(pool), ...)
  redis.call('PEXPIRE', quarantine_of(pool), QUARANTINE_LIFE)
end

-- What is tried by this draw, and when it has shown that it was not the cause.
local tried, proved_at = {}, 0

-- Takes an entry out of its list, at whose head or elsewhere it stands.
local function pop(list, i, entry)
  if i == 0 then
    redis.call('LPOP', list)
  else
    redis.call('LREM', list, 1, entry)
  end
end

-- Takes the job of the entry that stands at `i` of a lane, unless it must wait or is none any more. Returns 'taken',
-- 'skipped', 'discarded', or 'closed' where so many were passed over that no more are looked at.
local function draw_entry(pool, class, tenant, list, i, entry)
  local id, ticket = string.match(entry, '^(.+) (%d+)$')
  if not id then
    pop(list, i, entry)
    set_aside(entry, 'draw')
    return 'discarded'
  end
  local name = job_of(id)
  -- All in one command, which is cheaper than two: the fields that are asked for stand behind those that are named here.
  local values = redis.pcall('HMGET', name,
    'state', 'ticket', 'deadline', 'deaths', 'avoid', 'avoid_until', 'placed_at',
    'dispatch', 'attempt', 'run', 'offset', 'n', 'cost', 'weight', 'boot', 'lossy', 'failed_on', 'group',
    'suspicion', 'proof',
    unpack(ARGV, FIRST_FIELD, FIRST_POOL - 1))
  local state, job_ticket, deadline, deaths, avoid, avoid_until, placed_at,
    dispatch, attempt, run, offset, n, cost, weight, job_boot, lossy, failed_on, group, suspicion, proof = unpack(values)
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
  local must_be_alone = is_name(group)
  local priority = string.match(class, '^alone%.(.*)$')
  if must_be_alone and not priority then
    pop(list, i, entry)
    let_wait_alone(id, ticket, pool, class, tenant, placed_at, false, now)
    soon(ALONE_PATIENCE)
    return 'discarded'
  end
  if avoid == worker and skipped < MAX_SKIPPED then
    avoid_until = whole(avoid_until, MAX_INTEGER)
    -- A clock that was set back makes no hint last longer.
    if avoid_until and avoid_until > now and avoid_until <= now + AVOID_LIFE then
      soon(avoid_until - now)
      return 'skipped'
    end
  end
  if is_listed(failed_on, worker_id) and placed_at <= now and placed_at + OTHERS_PATIENCE > now
      and has_others(pool, failed_on) then
    soon(placed_at + OTHERS_PATIENCE - now)
    return skipped < MAX_SKIPPED and 'skipped' or 'closed'
  end
  local wait = priority and wait_for_survivors(suspicion, pool, now) or 0
  if wait > 0 then
    soon(wait)
    return skipped < MAX_SKIPPED and 'skipped' or 'closed'
  end
  pop(list, i, entry)
  local draw, alone, dispatched = worker .. ':' .. integer(number), priority and '1' or '0', integer(dispatch)
  local attempted = integer(attempt + 1)
  n = n + 1
  local started = '{"attempt":' .. attempted .. ',"dispatch":' .. dispatched .. '}'
  if not say(id, run, offset, n, 'started', started) then
    give_up(id, now, 'draw')
    return 'discarded'
  end
  lossy = (lossy == '1' or job_boot ~= boot) and '1' or '0'
  redis.call('HSET', name, 'state', RUNNING, 'attempt', attempted, 'draw', draw, 'worker', worker, 'n', integer(n),
    'fence', fence(dispatched, attempted, draw), 'boot', boot, 'lossy', lossy, 'alone', alone,
    'drawn_at', integer(now), 'drawn_offset', integer(offset))
  apply('ZADD', leases, now + lease, 'j ' .. id)
  apply('HSET', drawn_of(worker), id, integer(number))
  number = number + 1
  note_probe(pool, tenant, id)
  cost = cost / weight
  local charged = tonumber(apply('ZINCRBY', tenants_of(pool, class), cost, tenant))
  apply('HSET', served_of(pool, class), 't:' .. tenant, charged, 'floor', charged - cost)
  if priority then
    charge(pool, priority, tenant, cost)
    tried[#tried + 1] = id
    proved_at = math.max(proved_at, now + (whole(proof, MAX_PROOF_MS) or MAX_PROOF_MS))
    note_quarantine(pool, 'since', integer(now), 'worker', '', 'tried', table.concat(tried, '\n'), 'proved_at',
      integer(proved_at))
    redis.call('SET', turn, '1', 'PX', TURN_LIFE)
  elseif is_others_turn then
    redis.call('DEL', turn)
    is_others_turn = false
  end
  local fields = {unpack(values, #values - (FIRST_POOL - FIRST_FIELD) + 1)}
  tell(id, dispatch, attempt + 1, draw, run, offset, alone, lossy, deaths, fields)
  return 'taken', id, group
end

-- Takes what is tried together with a suspect: with it half of its group.
local function draw_beside(pool, group, id)
  local others = waiting_suspects(pool, group, id)
  local most = math.min(math.ceil((#others + 1) / 2) - 1, count - (#answer - 2))
  for i = 1, most do
    local class, tenant = alone_class(others[i].priority), others[i].tenant
    local list = tenants_of(pool, class) .. ':' .. tenant
    draw_entry(pool, class, tenant, list, nil, others[i].id .. ' ' .. others[i].ticket)
    if redis.call('EXISTS', list) == 0 then
      apply('ZREM', tenants_of(pool, class), tenant)
    end
  end
end

-- By list, how many entries at its head were passed over in this draw.
local passed = {}

-- Takes the next job of a lane. Returns 'taken'; 'empty' (the tenant is out of the pool then), 'passed' (none that this
-- worker may have) or 'cut' (there may be one behind what was thrown away).
local function draw_of_lane(pool, class, tenant)
  local tenants = tenants_of(pool, class)
  local list = tenants .. ':' .. tenant
  local i, most = passed[list] or 0, math.min(discarded + MAX_DISCARDED_OF_LANE, MAX_DISCARDED)
  if is_barred(pool, tenant) then
    return 'passed'
  end
  while discarded < most do
    local entry = apply('LINDEX', list, i)
    if not entry and i == 0 then
      redis.call('ZREM', tenants, tenant)
      discarded = discarded + 1
      return 'empty'
    elseif not entry then
      return 'passed'
    end
    local became, id, group = draw_entry(pool, class, tenant, list, i, entry)
    if became == 'taken' then
      if is_name(group) then
        draw_beside(pool, group, id)
      end
      if i == 0 and redis.call('EXISTS', list) == 0 then
        redis.call('ZREM', tenants, tenant)
      end
      return 'taken'
    elseif became == 'skipped' then
      skipped, i = skipped + 1, i + 1
      passed[list] = i
    elseif became == 'closed' then
      discarded = discarded + 1
      return 'passed'
    else
      discarded = discarded + 1
    end
  end
  return 'cut'
end

-- By sorted set, how many of its tenants were found to have nothing in this draw: they stand in front.
local ranks = {}
-- Lanes in which there may be more, and where the first look at all of them stopped.
local cut, stopped_at = {}, nil

-- Takes the next job of a pool and a class. Returns whether there was one.
local function draw_of_pool(pool, class)
  local tenants = tenants_of(pool, class)
  if is_barred(pool) then
    return false
  end
  while discarded < MAX_DISCARDED do
    local rank = ranks[tenants] or 0
    local tenant = apply('ZRANGE', tenants, rank, rank)[1]
    if not tenant then
      return false
    end
    local became = draw_of_lane(pool, class, tenant)
    if became == 'taken' then
      return true
    elseif became ~= 'empty' then
      ranks[tenants] = rank + 1
      if became == 'cut' then
        cut[#cut + 1] = {pool, class, tenant}
      end
    end
  end
  return false
end

-- Whether a job waits in the pool's lanes of those that must run alone, and may run now.
local function has_alone(pool)
  for _, priority in ipairs(PRIORITIES) do
    local tenants, at = tenants_of(pool, alone_class(priority)), {0, 0}
    for _ = 1, MAX_DISCARDED_OF_LANE do
      local tenant = apply('ZRANGE', tenants, at[1], at[1])[1]
      if not tenant then
        break
      end
      local list = tenants .. ':' .. tenant
      local entry = apply('LINDEX', list, at[2])
      local id, ticket = string.match(entry or '', '^(.+) (%d+)$')
      local state, job_ticket, suspicion = read(job_of(id or ''), 'state', 'ticket', 'suspicion')
      if state == WAITING and job_ticket == ticket then
        local wait = wait_for_survivors(suspicion, pool, now)
        if wait == 0 then
          return true
        end
        soon(wait)
        at[2] = at[2] + 1
      elseif not entry and at[2] > 0 then
        at = {at[1] + 1, 0}
      elseif not entry then
        redis.call('ZREM', tenants, tenant)
      else
        apply('LREM', list, 1, entry)
        if not is_state(state) then
          set_aside(id or entry, 'draw')
        end
      end
    end
  end
  return false
end

-- Whether this worker is the one that runs the pool's next job alone.
local function is_quarantine_of(pool)
  local since, reserver, until_ms = unpack(apply('HMGET', quarantine_of(pool), 'since', 'worker', 'until'))
  since, until_ms = whole(since, MAX_INTEGER), whole(until_ms, MAX_INTEGER)
  local is_reserved = reserver and reserver ~= '' and until_ms and until_ms > now and until_ms <= now + RESERVED_LIFE
  if is_reserved and reserver == worker then
    return true
  elseif is_reserved and (busy or #answer > 2) then
    -- Only who runs nothing need not wait for that one, whose last job may take long.
    return false
  elseif not since or since > now then
    note_quarantine(pool, 'since', integer(now))
    soon(ALONE_PATIENCE)
    return false
  elseif since + ALONE_PATIENCE > now then
    soon(since + ALONE_PATIENCE - now)
    return false
  end
  return not is_trying(pool, now)
end

if not is_others_turn then
  for _, pool in ipairs(alone_pools) do
    if wants_more() and not is_barred(pool) and is_quarantine_of(pool) and has_alone(pool) then
      if busy or #answer > 2 then
        note_quarantine(pool, 'worker', worker, 'until', integer(now + RESERVED_LIFE))
        is_full = true
        soon(1000)
      else
        for _, priority in ipairs(PRIORITIES) do
          if wants_more() then
            draw_of_pool(pool, alone_class(priority))
          end
        end
      end
    end
  end
end

-- Takes jobs of a class: one of each pool in turn, from the pool at `at` on.
local function draw_of_all(class, at)
  local open = {}
  for i = at, pool_count - 1 do
    open[#open + 1] = i
  end
  while #open > 0 do
    local still_open = {}
    for _, i in ipairs(open) do
      if not wants_more() then
        return
      end
      local pool = ARGV[FIRST_POOL + (first + i) % pool_count]
      if draw_of_pool(pool, class) then
        still_open[#still_open + 1] = i
      elseif discarded == MAX_DISCARDED then
        stopped_at = {class, i, ranks[tenants_of(pool, class)] or 0, first}
        return
      end
    end
    open = still_open
  end
end

local first_class, first_at, goes_on = nil, 0, false
if cursor then
  redis.call('DEL', key('cursor:' .. worker))
  local class, at, rank, its_first = string.match(cursor, '^(%a+) (%d+) (%d+) (%d+)$')
  at, rank, its_first = whole(at, pool_count - 1), whole(rank, MAX_TOKENS), whole(its_first, MAX_INTEGER - pool_count)
  if is_priority(class) and at and rank and its_first then
    first_class, first_at, first, goes_on = class, at, its_first, true
    ranks[tenants_of(ARGV[FIRST_POOL + (first + at) % pool_count], class)] = rank
  end
end
for _, class in ipairs(PRIORITIES) do
  if class == first_class then
    first_class = nil
  end
  if not first_class and wants_more() and not stopped_at then
    draw_of_all(class, first_at)
    first_at = 0
    -- What must run alone comes behind what need not.
    for _, pool in ipairs(alone_pools) do
      if #answer == 2 and not busy and #cut == 0 and wants_more() and not is_trying(pool, now) then
        draw_of_pool(pool, alone_class(class))
      end
    end
  end
end
if stopped_at and wants_more() then
  redis.call('SET', key('cursor:' .. worker), table.concat(stopped_at, ' '), 'PX', CURSOR_LIFE)
end
while #cut > 0 and wants_more() and discarded < MAX_DISCARDED do
  local still_cut = {}
  for _, lane in ipairs(cut) do
    local became = 'taken'
    while became == 'taken' and wants_more() do
      became = draw_of_lane(unpack(lane))
    end
    if became == 'cut' then
      still_cut[#still_cut + 1] = lane
    end
  end
  cut = still_cut
end

if wants_more() and (discarded == MAX_DISCARDED or goes_on) then
  soon(1)
end
if #answer > 2 then
  redis.call('SET', process_of(worker), process, 'PX', MAX_LEASE)
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
