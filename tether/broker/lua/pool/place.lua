-- Lets a dispatch wait in its pool, unless Redis knows it, or a newer one, or that the job has ended.
-- ARGV: job, dispatch, pool, tenant, priority, lossy ('1': Redis had it before), how many entries its lane may have
-- before it (0: any number), then what else the job's hash is to hold, for draw and the worker: field, value, field,
-- value... with at least weight, cost and deadline
-- Returns: 'placed'; 'known' (this dispatch, whatever became of it, or a newer one); 'closed' (never to run); 'full'
-- (as many wait before it as may); 'invalid' (no dispatch can be placed so).
local id, dispatch, pool, tenant, priority, lossy, max_waiting = unpack(ARGV, 1, 7)
local FIRST_PAIR = 8
local MAX_ARGUMENTS = 256
max_waiting = whole(max_waiting, MAX_INTEGER)
local number = whole(dispatch, MAX_TOKENS)
if not number or number == 0 or integer(number) ~= dispatch or not is_id(id) or not is_word(pool)
    or not is_name(tenant) or not is_priority(priority) or not max_waiting or #ARGV % 2 == 0
    or #ARGV > MAX_ARGUMENTS then
  return 'invalid'
end
local weight, cost, deadline, max_tokens, failed_on, expires_at = nil, nil, nil, MAX_TOKENS, nil, 0
for i = FIRST_PAIR, #ARGV, 2 do
  local field, value = ARGV[i], ARGV[i + 1]
  if field == 'weight' then
    weight = share(value)
  elseif field == 'cost' then
    cost = whole(value, MAX_INTEGER)
  elseif field == 'deadline' then
    deadline = whole(value, MAX_INTEGER)
  elseif field == 'expires_at' then
    expires_at = whole(value, MAX_INTEGER)
  elseif field == 'max_tokens' then
    max_tokens = whole(value, MAX_TOKENS)
  elseif field == 'failed_on' and #value <= MAX_NAME_BYTES then
    failed_on = value
  elseif #value > MAX_FIELD_BYTES then
    return 'invalid'
  end
end
if not (weight and cost and deadline and max_tokens and expires_at) then
  return 'invalid'
end

-- Where the stream of a job that Redis does not know goes on: behind what is left of it, in a new run where that has
-- ended, and anew where it is no part of a stream that can go on.
local function begin_above(stream, is_refused)
  local last = redis.pcall('XREVRANGE', stream, '+', '-', 'COUNT', 1)
  local run = 0
  if last[1] then
    local position, count = string.match(last[1][1], '^(%d+)-(%d+)$')
    local kind = last[1][2][2]
    position, count = whole(position, MAX_INTEGER), whole(count, MAX_INTEGER - 2)
    if position then
      run = math.floor(position / RUN_STEP)
      local offset = position - run * RUN_STEP
      if count and run < MAX_RUN and offset <= last_offset(max_tokens) then
        if kind == 'finished' or kind == 'failed' then
          -- It stays for the outcome, which may not be settled yet.
          return run + 1, 0, count
        end
        return run, offset, count
      end
    end
    run = run < MAX_RUN and run + 1 or 0
  elseif not last.err and not is_refused then
    return 0, 0, 0
  end
  redis.call('DEL', stream)
  return run, 0, 0
end

local name, stream = job_of(id), stream_of(id)
local job_dispatch, closed, state, worker, job_ticket, run, offset, n, job_expires_at, job_attempt, job_lossy =
  read(name, 'dispatch', 'closed', 'state', 'worker', 'ticket', 'run', 'offset', 'n', 'expires_at', 'attempt', 'lossy')
if closed == '1' then
  return 'closed'
end
local job_number = whole(job_dispatch, MAX_TOKENS)
if job_number and job_number > number then
  return 'known'
end
job_ticket, run, offset, n = whole(job_ticket, MAX_INTEGER - 1), whole(run, MAX_RUN), whole(offset, MAX_TOKENS),
  whole(n, MAX_INTEGER - 2)
local is_readable = job_number and is_state(state) and job_ticket and run and offset and n
if is_readable and job_number == number then
  return 'known'
end
if max_waiting > 0 and apply('LLEN', tenants_of(pool, priority) .. ':' .. tenant) >= max_waiting then
  return 'full'
end
local now = now_ms()
local ticket, has_begun = '1', job_expires_at == '0' or job_attempt ~= '0'
if is_readable and say(id, run, offset, n + 1, 'rerouted', '{}') then
  if state == RUNNING then
    let_go(id, worker)
    log_attempt(id, now, 'superseded', 'database')
  elseif state ~= WAITING then
    -- Its outcome has them.
    redis.call('HDEL', name, 'log', 'logged')
  end
  -- Whether its last dispatch has begun its tokens anew.
  local has_begun_run = run > (job_number - 1) * RUNS_PER_DISPATCH
  ticket, lossy = integer(job_ticket + 1), has_begun_run and '0' or job_lossy
  redis.call('HSET', name, 'n', integer(n + 1))
  redis.call('HDEL', name, 'group')
  local job_pool = read(name, 'pool')
  if job_pool ~= pool then
    note_arrival(id, pool)
  end
  if has_begun_run or (job_number == 1 and job_attempt ~= '0') then
    -- Its tokens are from there. Where its last dispatch went on from those of an earlier one, or made none, they are
    -- of the same version as before.
    redis.call('HSET', name, 'began_in', job_pool or '')
  end
  redis.call('PERSIST', name)
  redis.call('PERSIST', stream)
else
  if job_dispatch ~= false then
    let_go(id, worker)
    redis.call('DEL', name)
  end
  run, offset, n = begin_above(stream, is_readable)
  -- A second dispatch of what was never seen: tokens of the first are lost.
  lossy = (number > 1 or n > 0) and '1' or lossy
  has_begun = lossy == '1' or job_dispatch ~= false
  if lossy == '1' or job_dispatch ~= false then
    -- Entries that are left of it, in whichever lane, are void.
    ticket = integer(now)
  end
  if n > 0 then
    n = n + 1
    say(id, run, offset, n, 'rerouted', '{}')
    redis.call('PERSIST', stream)
  end
  redis.call('HSET', name, 'run', integer(run), 'offset', integer(offset), 'n', integer(n), 'deaths', '0', 'lost', '',
    'boot', apply('GET', key('core:restarts')) or '0')
end
redis.call('HSET', name, 'v', VERSION, 'state', WAITING, 'dispatch', dispatch, 'attempt', '0', 'draw', '', 'worker', '',
  'fence', '', 'pool', pool, 'tenant', tenant, 'priority', priority, 'asked', priority, 'next', '', 'aged_at', '',
  'lossy', lossy == '1' and '1' or '0',
  'cancel', '', 'closed', '0', 'said', '0', 'ticket', ticket, 'placed_at', integer(now), 'alone', '0', 'avoid', '',
  'avoid_until', '0', unpack(ARGV, FIRST_PAIR))
if has_begun and expires_at > 0 then
  -- Or may have, for all that is left of it: it does not expire unbegun.
  redis.call('HSET', name, 'expires_at', '0')
end
let_wait(id, ticket, pool, priority, tenant, now, false)
wake_one(pool, now, '', tenant, failed_on)
return 'placed'
