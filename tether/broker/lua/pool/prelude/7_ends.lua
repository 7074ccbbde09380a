-- How an attempt ends, and where its job goes then.

-- The worker that lost a job is not given it again for so long, where others may be had (ms).
local AVOID_LIFE = 2000
-- A worker that hands a job back may say for how long it could not run it; for no longer (ms).
local MAX_AVOID_LIFE = 10000

local function fence(dispatch, attempt, draw)
  return dispatch .. '|' .. attempt .. '|' .. draw
end

-- Ends a running attempt's hold of the job.
local function let_go(id, worker)
  apply('ZREM', leases, 'j ' .. id)
  if worker then
    apply('HDEL', drawn_of(worker), id)
  end
end

-- Hands a job back to the database. is_probe: a held worker had it alone, to show whether it works again.
local function add_outcome(id, kind, now, error, input, reason, dispatch, attempt, draw, worker, run, offset, deaths,
    is_probe)
  local log, logged, evidence = read(job_of(id), 'log', 'logged', 'evidence')
  apply('XADD', key('core:outcomes'), '*', 'v', VERSION, 'job', id, 'kind', kind,
    'dispatch', dispatch, 'attempt', attempt, 'draw', draw, 'worker', worker, 'run', run, 'offset', offset,
    'deaths', deaths, 'at', integer(now), 'error', error, 'input', input, 'reason', reason,
    'log', log or '', 'logged', integer(whole(logged, MAX_INTEGER) or 0),
    'evidence', evidence or '', 'probe', is_probe and '1' or '0')
end

local function write_outcome(id, kind, now, error, is_probe)
  local name = job_of(id)
  local dispatch, attempt, draw, worker, run, offset, deaths =
    read(name, 'dispatch', 'attempt', 'draw', 'worker', 'run', 'offset', 'deaths')
  add_outcome(id, kind, now, error or '', '0', '', integer(whole(dispatch, MAX_TOKENS) or 0),
    integer(whole(attempt, MAX_TOKENS) or 0), draw or '', worker or '', integer(whole(run, MAX_RUN) or 0),
    integer(whole(offset, MAX_TOKENS) or 0), integer(whole(deaths, MAX_TOKENS) or 0), is_probe)
  -- Should it go on, it is placed with its payload: meanwhile that would take memory which placing needs.
  redis.call('HDEL', name, 'body')
end

local may_have_begun
do
  local counted, is_known = nil, false

  -- Restarts of Redis; nil where the lease loop has not counted one yet that just was.
  local function restarts()
    if not is_known then
      is_known = true
      local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
      if apply('HGET', key('core:lease_tick'), 'run_id') == run_id then
        counted = apply('GET', key('core:restarts')) or '0'
      end
    end
    return counted
  end

  -- Whether a job that may expire unbegun has begun, or may have: Redis could have lost that since it was placed. All are
  -- fields of its hash. Workers of older versions count the attempt alone.
  may_have_begun = function(expires_at, attempt, boot)
    return (whole(expires_at or '0', MAX_INTEGER) or 0) == 0 or attempt ~= '0' or boot ~= restarts()
  end
end

-- Ends a job that nobody runs any more for a reason that is final: cancelled or expired.
local function close(id, kind, now)
  redis.call('HSET', job_of(id), 'state', kind, 'closed', '1')
  say_the_end(id, 'failed', failure(kind, kind))
end

-- What is left of a job that Redis does not know, or whose hash cannot be read: it must never be placed again.
local function leave_tombstone(id, state, life, is_silent)
  local name = job_of(id)
  redis.call('DEL', name)
  redis.call('HSET', name, 'v', VERSION, 'state', state, 'closed', '1', 'silent', is_silent and '1' or '0',
    'run', '0', 'offset', '0', 'n', '0', 'dispatch', '0')
  redis.call('PEXPIRE', name, life)
end

-- A job that cannot go on with what Redis holds of it. The database places it anew: for the outcome where its dispatch
-- can be told, else once it has looked.
local function give_up(id, now, where)
  local name = job_of(id)
  local state, dispatch, worker = read(name, 'state', 'dispatch', 'worker')
  if (state == WAITING or state == RUNNING) and whole(dispatch, MAX_TOKENS) then
    let_go(id, worker)
    log_attempt(id, now, 'unreadable', 'database')
    redis.call('HSET', name, 'state', 'withdrawn', 'fence', '')
    write_outcome(id, 'withdrawn', now)
    return 'withdrawn'
  end
  apply('ZREM', leases, 'j ' .. id)
  set_aside(id, where)
  return 'set_aside'
end

-- A job's worker is gone, or gives it back: it waits again, where it was or behind the others, unless somebody wants it
-- ended. cause, evidence: see log_attempt.
-- Returns what became of it.
local function return_to_pool(id, now, avoid, cause, to_tail, evidence)
  local name = job_of(id)
  local cancel, deadline, pool, priority, tenant, ticket, run, offset, n, group, placed_at, alone, failed_on, job_next =
    read(name, 'cancel', 'deadline', 'pool', 'priority', 'tenant', 'ticket', 'run', 'offset', 'n', 'group',
      'placed_at', 'alone', 'failed_on', 'next')
  local ending = cancel
  deadline = whole(deadline, MAX_INTEGER)
  if ending == '' and deadline and deadline > 0 and deadline <= now then
    ending = 'expired'
  end
  if is_requested_end(ending) then
    log_attempt(id, now, cause, 'end', evidence)
    write_outcome(id, ending, now)
    close(id, ending, now)
    return ending
  end
  ticket, run, offset, n = whole(ticket, MAX_INTEGER - 1), whole(run, MAX_RUN), whole(offset, MAX_TOKENS),
    whole(n, MAX_INTEGER - 1)
  local is_readable = cancel == '' and deadline and ticket and run and offset and n
    and is_word(pool) and is_priority(priority) and is_name(tenant)
  if not is_readable or not say(id, run, offset, n + 1, 'rerouted', '{}') then
    log_attempt(id, now, cause, 'database', evidence)
    return give_up(id, now, 'return')
  end
  log_attempt(id, now, cause, 'pool', evidence)
  ticket = integer(ticket + 1)
  if is_priority(job_next) then
    -- It was given another while it ran.
    priority = job_next
  end
  redis.call('HSET', name, 'state', WAITING, 'ticket', ticket, 'n', integer(n + 1), 'fence', '', 'alone', '0',
    'priority', priority, 'next', '', 'avoid', avoid, 'avoid_until', integer(now + AVOID_LIFE))
  placed_at = whole(placed_at, MAX_INTEGER) or now
  if is_name(group) then
    let_wait_alone(id, ticket, pool, priority, tenant, placed_at, alone == '1' and not to_tail, now)
    wake_all(pool, now)
  else
    let_wait(id, ticket, pool, priority, tenant, placed_at, not to_tail)
    wake_one(pool, now, avoid, tenant, failed_on)
  end
  return WAITING
end

-- Whether a job wants or has to end: 'cancelled', 'expired', or 'ok'; nil where its hash cannot be read.
local function end_asked_for(cancel, deadline, now)
  if cancel == '' then
    if deadline == '0' then
      return 'ok'
    end
    deadline = whole(deadline, MAX_INTEGER)
    if not deadline then
      return nil
    end
    return deadline > 0 and deadline <= now and 'expired' or 'ok'
  end
  return is_requested_end(cancel) and cancel or nil
end

-- The greatest offset that a job's stream can have.
local function last_offset(max_tokens)
  local number = whole(max_tokens, MAX_TOKENS)
  return number and number > 0 and number or MAX_TOKENS
end

-- What finish, fail and release begin with. ARGV: epoch, job, dispatch, attempt, draw, run, offset, count, data, and
-- so many more. Returns what was asked, and what the job's hash holds; nothing may be written unless its code is 'ok'.
local function read_ending(more)
  local _, id, dispatch, attempt, draw, run, offset, made, data = unpack(ARGV, 1, 9)
  run, offset, made = whole(run, MAX_RUN), whole(offset, MAX_TOKENS), whole(made, MAX_TOKENS)
  local ending = {id = id, data = data, run = run, made = made, draw = draw, stands_at = '0', code = 'invalid'}
  if #ARGV ~= 9 + more or not (run and offset and made and is_name(id)) then
    return ending
  end
  local name = job_of(id)
  local job_fence, job_run, job_offset, n, state, worker, pool, priority, tenant, weight, deaths, max_tokens, cost =
    read(name, 'fence', 'run', 'offset', 'n', 'state', 'worker', 'pool', 'priority', 'tenant', 'weight', 'deaths',
      'max_tokens', 'cost')
  if job_fence == false then
    ending.code = 'unknown'
    return ending
  elseif not job_fence then
    ending.code = 'unreadable'
    return ending
  end
  job_run, job_offset = whole(job_run, MAX_RUN), whole(job_offset, MAX_TOKENS)
  ending.stands_at = integer(job_offset or 0)
  ending.state = state
  if job_fence ~= fence(dispatch, attempt, draw) then
    ending.code = 'fenced'
    return ending
  end
  if is_revoked(draw) then
    -- What it holds is about to be taken from it.
    ending.code = 'fenced'
    return ending
  end
  ending.is_its_own = true
  n, weight, deaths = whole(n, MAX_INTEGER - 2), share(weight), whole(deaths, MAX_TOKENS)
  if not (job_run and job_offset and n and weight and deaths and pool and priority and tenant and worker) then
    ending.code = 'unreadable'
  elseif job_run ~= run or job_offset ~= offset then
    ending.code = 'offset'
  elseif offset + made <= last_offset(max_tokens) and (made == 0 or has_tokens(data, made)) then
    ending.code = 'ok'
  end
  ending.n, ending.worker, ending.pool, ending.priority, ending.tenant = n, worker, pool, priority, tenant
  ending.weight, ending.deaths, ending.end_offset = weight, deaths, offset + made
  ending.dispatch, ending.attempt, ending.cost = dispatch, attempt, whole(cost, MAX_INTEGER)
  return ending
end

-- The last tokens of an attempt that ends. Returns where the stream stands; nil, having written nothing, where it does
-- not take them.
local function add_last_tokens(ending)
  if ending.made > 0 then
    ending.n = ending.n + 1
    if not say(ending.id, ending.run, ending.end_offset, ending.n, 'delta', ending.data) then
      return nil
    end
    charge(ending.pool, ending.priority, ending.tenant, ending.made * FAIR.OUTPUT_PRICE / ending.weight)
    note_classes(worker_of(ending.worker), {[ending.pool] = {[ending.priority] = ending.made * FAIR.OUTPUT_PRICE}}, now_ms())
  end
  return integer(ending.end_offset)
end

-- What a worker's write is answered that does not count.
local function refuse_ending(ending, now, where)
  if ending.code == 'unreadable' then
    give_up(ending.id, now, where)
  end
  return {ending.code, ending.stands_at}
end
