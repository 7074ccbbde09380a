-- Taking jobs out of their lanes.

local function note_quarantine(pool, ...)
  apply('HSET', quarantine_of(pool), ...)
  redis.call('PEXPIRE', quarantine_of(pool), QUARANTINE_LIFE)
end

-- A job runs alone, or apart, from now on: nobody keeps itself free for it any more.
local function note_beginning(pool)
  local kept = read_keeping(pool, now)
  if kept.keeper then
    stop_keeping(pool, kept, kept.lost, now)
  end
end

-- What is tried by this draw, in which pool, and when it has shown that it was not the cause.
local trial = {ids = {}, pool = nil, proved_at = 0}
-- By pool and class, the price of what was drawn; and whether of that something need not run alone or apart.
local drawn = {totals = {}, has_others = false}

local draw_entry
do
  -- So long after it was placed a job waits for another worker than those that failed it (ms).
  local OTHERS_PATIENCE = 60000
  -- After a job alone others come first. So long does a worker at most run one (ms), or they come first once more.
  local TURN_LIFE = 3600000

  -- Takes an entry out of its list, at whose head or elsewhere it stands.
  local function pop(list, i, entry)
    if i == 0 then
      redis.call('LPOP', list)
    else
      redis.call('LREM', list, 1, entry)
    end
  end

  -- Lowers all counters of a pool and class by the least of those that wait.
  local function lower_counters(pool, class)
    local tenants, served = tenants_of(pool, class), served_of(pool, class)
    local scores, values = apply('ZRANGE', tenants, 0, -1, 'WITHSCORES'), redis.call('HGETALL', served)
    local base = counter_of(scores[2])
    if not base or base <= FAIR.LOWER_AT then
      return
    end
    for i = 1, #scores, 2 do
      redis.call('ZADD', tenants, (counter_of(scores[i + 1]) or base) - base, scores[i])
    end
    for i = 1, #values, 2 do
      local counter = counter_of(values[i + 1])
      if counter and counter > base then
        redis.call('HSET', served, values[i], counter - base)
      elseif values[i] == 'floor' then
        redis.call('HSET', served, 'floor', 0)
      elseif values[i] ~= 'last' then
        redis.call('HDEL', served, values[i])
      end
    end
  end

  -- Charges the tenant of a job that is drawn for its prompt.
  local function charge_draw(pool, class, tenant, tokens)
    local tenants, served = tenants_of(pool, class), served_of(pool, class)
    tokens = math.min(tokens, FAIR.MAX_CHARGE)
    local counter = counter_of(apply('ZINCRBY', tenants, tokens, tenant))
    if not counter then
      counter = (counter_of(apply('HGET', served, 'floor')) or 0) + tokens
      redis.call('ZADD', tenants, counter, tenant)
    end
    apply('HSET', served, 't:' .. tenant, counter, 'floor', counter - tokens, 'last', tenant)
    if counter - tokens > FAIR.LOWER_AT then
      lower_counters(pool, class)
    end
  end

  -- Takes the job of the entry that stands at `i` of a lane, unless it must wait or is none any more. Returns 'taken',
  -- 'skipped', 'discarded', or 'closed' where so many were passed over that no more are looked at.
  draw_entry = function(pool, class, tenant, list, i, entry)
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
      'suspicion', 'proof', 'expires_at',
      unpack(ARGV, FIRST_FIELD, FIRST_POOL - 1))
    local state, job_ticket, deadline, deaths, avoid, avoid_until, placed_at,
      dispatch, attempt, run, offset, n, cost, weight, job_boot, lossy, failed_on, group, suspicion, proof,
      expires_at = unpack(values)
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
    -- Older programs have placed jobs without it.
    local may_expire = expires_at and expires_at ~= '0'
    if not (deadline and deaths and placed_at and dispatch and attempt and run and offset and n and cost and weight)
        or may_expire and not whole(expires_at, MAX_INTEGER) then
      pop(list, i, entry)
      give_up(id, now, 'draw')
      return 'discarded'
    end
    if deadline > 0 and deadline <= now
        or may_expire and tonumber(expires_at) <= now and not may_have_begun(expires_at, integer(attempt), job_boot) then
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
      soon(BLAME.ALONE_PATIENCE)
      return 'discarded'
    end
    if avoid == worker and skipped < MAX_SKIPPED then
      avoid_until = whole(avoid_until, MAX_INTEGER)
      -- A clock that was set back makes no hint last longer.
      if avoid_until and avoid_until > now and avoid_until <= now + MAX_AVOID_LIFE then
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
    if may_expire then
      redis.call('HSET', name, 'expires_at', '0')
    end
    apply('ZADD', leases, now + lease, 'j ' .. id)
    apply('HSET', drawn_of(worker), id, integer(number))
    number = number + 1
    note_probe(pool, tenant, id)
    if limits then
      limits.take(tenant)
    end
    drawn.totals[pool] = drawn.totals[pool] or {}
    drawn.totals[pool][class] = (drawn.totals[pool][class] or 0) + cost * FAIR.INPUT_PRICE
    cost = cost * FAIR.INPUT_PRICE / weight
    charge_draw(pool, class, tenant, cost)
    if priority then
      charge(pool, priority, tenant, cost)
      trial.pool = pool
      trial.ids[#trial.ids + 1] = id
      trial.proved_at = math.max(trial.proved_at, now + (whole(proof, BLAME.MAX_PROOF_MS) or BLAME.MAX_PROOF_MS))
      note_beginning(pool)
      note_quarantine(pool, 'since', integer(now), 'tried', table.concat(trial.ids, '\n'), 'proved_at',
        integer(trial.proved_at))
      redis.call('SET', key('turn:' .. worker), '1', 'PX', TURN_LIFE)
    elseif turn_of ~= tenant then
      drawn.has_others = true
      if is_others_turn then
        redis.call('DEL', key('turn:' .. worker))
        is_others_turn = false
      end
    end
    local fields = {unpack(values, #values - (FIRST_POOL - FIRST_FIELD) + 1)}
    tell(id, dispatch, attempt + 1, draw, run, offset, alone, lossy, deaths, fields)
    return 'taken', id, group
  end
end

local draw_of_lane
do
  -- Takes what is tried together with a suspect: with it half of its group.
  local function draw_beside(pool, group, id)
    local others = waiting_suspects(pool, group, id)
    local most = math.min(math.ceil((#others + 1) / 2) - 1, count - (#answer - 2))
    for i = 1, most do
      local class, tenant = alone_class(others[i].priority), others[i].tenant
      local list = tenants_of(pool, class) .. ':' .. tenant
      if not limits or not limits.is_out(tenant) then
        draw_entry(pool, class, tenant, list, nil, others[i].id .. ' ' .. others[i].ticket)
      end
      if redis.call('EXISTS', list) == 0 then
        apply('ZREM', tenants_of(pool, class), tenant)
      end
    end
  end

  -- By list, how many entries at its head were passed over in this draw.
  local passed = {}

  -- Takes the next job of a lane. Returns 'taken'; 'empty' (the tenant is out of the pool then), 'passed' (none that this
  -- worker may have) or 'cut' (there may be one behind what was thrown away).
  draw_of_lane = function(pool, class, tenant)
    local tenants = tenants_of(pool, class)
    local list = tenants .. ':' .. tenant
    local i, most = passed[list] or 0, math.min(discarded + MAX_DISCARDED_OF_LANE, MAX_DISCARDED)
    if limits and limits.is_out(tenant) then
      limits.note_passed(pool, tenant)
      return 'passed'
    end
    if is_barred(pool, tenant)
        or is_priority(class) and turn_of ~= tenant and is_apart(apart[pool], tenant) then
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
    local tenant, score = unpack(apply('ZRANGE', tenants, rank, rank, 'WITHSCORES'))
    if not tenant then
      return false
    end
    local became = 'mended'
    if limits and limits.is_out(tenant) then
      became = 'limited'
      ranks[tenants] = limits.pass_over(pool, tenants, rank)
    elseif counter_of(score) then
      became = draw_of_lane(pool, class, tenant)
    else
      -- No counter: it costs its tenant what it had, and nobody else.
      redis.call('ZADD', tenants, counter_of(apply('HGET', served_of(pool, class), 'floor')) or 0, tenant)
      discarded = discarded + 1
    end
    if became == 'taken' then
      return true
    elseif became ~= 'empty' and became ~= 'mended' and became ~= 'limited' then
      ranks[tenants] = rank + 1
      if became == 'cut' then
        cut[#cut + 1] = {pool, class, tenant}
      end
    end
  end
  return false
end

