-- Shared by every script of pool jobs. KEYS[1] is <namespace>:core:leases; all other keys live in the same slot.
local prefix = string.sub(KEYS[1], 1, -13)
local leases = KEYS[1]

local VERSION = '1'
-- A woken worker that does not draw for so long is taken out of the idle sets, and the next is woken (ms).
local WAKE_LIFE = 500
-- Life of a bell that nobody listens to (ms).
local BELL_LIFE = 60000
-- So many idle workers are looked at for one that lives.
local MAX_LOOKED_AT = 8
-- The worker that lost a job is not given it again for so long, where others may be had (ms).
local AVOID_LIFE = 2000
-- Deaths of its workers after which a job runs alone.
local DEATHS_BEFORE_ALONE = 2
-- Positions in the stream: ids are <run * RUN_STEP + end offset>-<n>.
local RUN_STEP = 4294967296

-- What a script accepts, and what it believes of a hash. Redis rolls nothing back: all is checked before the first
-- write.
-- Greatest whole number that a Lua number holds exactly.
local MAX_INTEGER = 9007199254740991
-- Least share of a tenant.
local MIN_SHARE = 1e-9
-- Greatest number of tokens, of a prompt or of an answer: what a column of the database holds.
local MAX_TOKENS = 2147483647
-- Positions of greater runs are no whole numbers any more.
local MAX_RUN = 2097151
-- Runs that the attempts of one dispatch can open before they reach those of the next.
local RUNS_PER_DISPATCH = 256
-- Size of one event's data, of the reason why an attempt failed, and of anything else that a job's hash keeps.
local MAX_EVENT_BYTES = 1048576
local MAX_ERROR_BYTES = 65536
local MAX_FIELD_BYTES = 67108864
local MAX_NAME_BYTES = 512
-- Longest life of what has ended (ms): ten years.
local MAX_LIFE = 315360000000
-- Longest lease (ms): a day, as in the settings. A job whose worker is gone waits for its end.
local MAX_LEASE = 86400000
-- Of a worker so many pools are known: as many as it may announce, or draw from.
local MAX_ASKED_POOLS = 64
-- So many jobs wait at most to be looked at by the database's side.
local MAX_SET_ASIDE = 10000

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

-- Jobs that must run alone wait in lanes of their own, where they are in front of nobody.
local function alone_class(priority)
  return 'alone.' .. priority
end

-- Whose turn it is among a pool's jobs that must run alone.
local function quarantine_of(pool)
  return key('quarantine:' .. pool)
end

-- What ends or goes on with an attempt, or makes room, begins with this. At its memory limit Redis refuses what may take
-- memory only as a script's first write; so a delete comes first, of a key that never is.
local function pass_memory_limit()
  redis.call('DEL', key('core:none'))
end

-- Whether Redis would refuse a first write. This one writes nothing: the text that it sets is empty.
local function is_at_memory_limit()
  local answer = redis.pcall('SETRANGE', key('core:none'), 0, '')
  return type(answer) == 'table' and answer.err ~= nil and string.find(answer.err, 'OOM', 1, true) ~= nil
end

local function integer(number)
  return string.format('%.0f', number)
end

-- Functions, since a table would be filled anew in every call.
local function is_priority(text)
  return text == 'standard' or text == 'interactive' or text == 'batch'
end

-- An end that can be asked for.
local function is_requested_end(text)
  return text == 'cancelled' or text == 'expired'
end

-- A state that the database can have committed.
local function is_final(text)
  return text == 'succeeded' or text == 'dead' or is_requested_end(text)
end

-- A state in which the hash of a job can be.
local function is_state(text)
  return text == WAITING or text == RUNNING or text == 'failed' or text == 'withdrawn' or text == 'poisoned'
    or is_final(text)
end

-- Return the whole number from 0 to `most` that a text is, or nil.
local function whole(text, most)
  local number = tonumber(text)
  if number and number >= 0 and number <= most and number % 1 == 0 then
    return number + 0
  end
end

-- Return the share that a text is, or nil.
local function share(text)
  local number = tonumber(text)
  if number and number >= MIN_SHARE and number <= MAX_INTEGER then
    return number
  end
end

local function is_name(text)
  return text and #text > 0 and #text <= MAX_NAME_BYTES
end

-- An id of a job, which everybody must be able to read: printable ASCII.
local function is_id(text)
  return is_name(text) and not string.find(text, '[^ -~]')
end

-- Names that are kept in lists which spaces divide.
local function is_word(text)
  return is_name(text) and not string.find(text, '%s')
end

local function is_json(text, max_bytes)
  return #text <= max_bytes and pcall(cjson.decode, text)
end

-- A whole number of 64 bits. What is infinite, or no number, leaves no rest of 0.
local function is_token_id(value)
  return type(value) == 'number' and value % 1 == 0 and value >= -2 ^ 63 and value < 2 ^ 63
end

-- Whether cjson has read what is no JSON: numbers like 0x1, 01, 1., -.5, +1, nan and inf, control characters in texts, and
-- anything behind a zero byte.
local function is_odd(data)
  local text = string.find(data, '\\', 1, true) and string.gsub(data, '\\.', '') or data
  -- Texts may look like such numbers. Those with control characters stay, with their quotes.
  local rest = string.gsub(text, '"[^"%z\1-\31]*"', '')
  return string.find(rest, '[%[,:%s]%-?0[xX%d]')
    -- Mostly nothing is left but whole numbers.
    or string.find(rest, '[^%d,:%[%]{}]') and (string.find(rest, '%d%.%D') or string.find(rest, '["%z]')
      or string.find(rest, '[%[,:%s]%-?[+.iIN]') or string.find(rest, '[%[,:%s]%-?n[aA]'))
end

-- Whether the data of a delta hold so many tokens, in any spelling that readers know.
local function has_tokens(data, count)
  if #data > MAX_EVENT_BYTES then
    return false
  end
  local is_read, value = pcall(cjson.decode, data)
  if not is_read or type(value) ~= 'table' then
    return false
  end
  local ids, texts = value.t, value.s
  if ids == nil then
    ids, texts = value.ids == nil and value.token_ids or value.ids, value.texts
  end
  if type(ids) ~= 'table' or type(texts) ~= 'table' or #ids ~= count or #texts ~= count then
    return false
  elseif count == 0 and (next(ids) or next(texts)) then
    -- An object, whose keys are no numbers.
    return false
  end
  for i = 1, count do
    if not is_token_id(ids[i]) or type(texts[i]) ~= 'string' then
      return false
    end
  end
  return not is_odd(data)
end

local function refuse(what)
  return redis.error_reply('INVALID ' .. what .. ': nothing was written')
end

-- Fields of a job's hash: false where it has none, nil where the key is of another type.
local function read(name, ...)
  local values = redis.pcall('HMGET', name, ...)
  if not values.err then
    return unpack(values)
  end
end

-- Whether what stands in a key is no such thing as the command works on. Other errors are no fault of the key.
local function is_misfit(err)
  return string.find(err, 'WRONGTYPE', 1, true) or string.find(err, 'equal or smaller', 1, true)
    or string.find(err, 'hash value is not', 1, true) or string.find(err, 'NaN or Inf', 1, true)
end

-- Runs a command on a key beside the job: what stands there and is no such thing is thrown away, since nobody can read
-- it, and since the scripts must not end half-way.
local function apply(command, name, ...)
  local answer = redis.pcall(command, name, ...)
  if type(answer) == 'table' and answer.err then
    if is_misfit(answer.err) then
      redis.call('DEL', name)
    end
    return redis.call(command, name, ...)
  end
  return answer
end

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- What cannot be read is left to the database's side, which looks at it soon.
local function set_aside(id, where)
  local aside = key('core:set_aside')
  if apply('HLEN', aside) < MAX_SET_ASIDE then
    redis.call('HSET', aside, string.sub(id, 1, MAX_NAME_BYTES), where)
  end
end

-- Workers that were told another epoch speak of jobs that Redis has lost since.
local function is_stale(epoch)
  return redis.call('GET', key('core:epoch')) ~= epoch
end

-- Whether the key of a worker, by its boot id or one of its draws, was revoked.
local function is_revoked(worker)
  return apply('SISMEMBER', key('core:revoked'), string.match(worker, '^[^.]*')) == 1
end

-- The same for many draws, most of one worker: each worker is asked for once.
local function revocation_check()
  local known = {}
  return function(draw)
    local worker = string.match(draw, '^[^.]*')
    if known[worker] == nil then
      known[worker] = is_revoked(worker)
    end
    return known[worker]
  end
end

local function fence(dispatch, attempt, draw)
  return dispatch .. '|' .. attempt .. '|' .. draw
end

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

-- What a worker was last seen to do, by Redis's clock: who places jobs believes this, and not what a worker announces.
local function seen_doing()
  return key('core:seen')
end

-- The worker of a boot id: what one of its lives has done counts for the next.
local function worker_of(boot_id)
  return string.match(boot_id, '^[^.:]*')
end

-- That a worker asks these pools for jobs is noted. Of it one text is kept, which none can make long: "<ms> <pool>
-- <pool>...", and behind a tab each the same of pools that it asked before and not now.
local function note_asking(boot_id, pools, now)
  local worker, noted = worker_of(boot_id), key('core:asked')
  local last = math.min(#pools, MAX_ASKED_POOLS)
  local asked = table.concat(pools, ' ', 1, last)
  local former = apply('HGET', noted, worker) or ''
  local text = integer(now) .. ' ' .. asked
  local formerly_asked, older = string.match(former, '^%d+ ([^\t]*)(.*)$')
  if formerly_asked == asked then
    text = text .. older
  else
    local is_noted, count = {}, last
    for i = 1, last do
      is_noted[pools[i]] = true
    end
    for at, its_pools in string.gmatch(former, '(%d+) ([^\t]*)') do
      local kept = {}
      for pool in string.gmatch(its_pools, '%S+') do
        if count < MAX_ASKED_POOLS and not is_noted[pool] then
          is_noted[pool], count = true, count + 1
          kept[#kept + 1] = pool
        end
      end
      if #kept > 0 then
        text = text .. '\t' .. at .. ' ' .. table.concat(kept, ' ')
      end
    end
  end
  apply('HSET', noted, worker, text)
end

-- For so long a process has the lead among those with one key after it last drew or beat (ms).
local LEAD_LIFE = 15000

local function lead_of(boot_id)
  return key('lead:' .. worker_of(boot_id))
end

-- It works: it renewed the lease of the attempt of this draw.
local function note_renewal(draw, now)
  apply('ZADD', seen_doing(), now, 'r ' .. worker_of(draw))
end

-- Takes a worker out of all idle sets that it stands in.
local function leave_idle(worker)
  local standing = key('idle:' .. worker)
  local pools = apply('GET', standing)
  if pools then
    for pool in string.gmatch(pools, '%S+') do
      apply('SREM', idle_of(pool), worker)
    end
    redis.call('DEL', standing)
  end
end

local function ring(worker, pool, now)
  leave_idle(worker)
  apply('SREM', idle_of(pool), worker)
  local bell = key('wake:' .. worker)
  apply('RPUSH', bell, 'draw')
  redis.call('PEXPIRE', bell, BELL_LIFE)
  apply('ZADD', leases, now + WAKE_LIFE, 'w ' .. worker)
  apply('HSET', key('core:woken'), worker, pool)
end

-- Wakes one idle worker of the pool, another than `avoid` where there is one.
local function wake_one(pool, now, avoid)
  local idle, last = idle_of(pool), nil
  for _ = 1, MAX_LOOKED_AT do
    -- One at a time: asked for several, Redis answers a small set in its own order.
    local worker = apply('SRANDMEMBER', idle)
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
  for _, worker in ipairs(apply('SMEMBERS', idle_of(pool))) do
    ring(worker, pool, now)
  end
end

-- Lets a job wait in a lane of its pool: at the tenant's end, or at its head where it was there before what waits.
-- A tenant that returns from idle gets no credit for the time away (Virtual Token Counter, OSDI 2024).
local function let_wait(id, ticket, pool, class, tenant, placed_at, to_head)
  local tenants = tenants_of(pool, class)
  apply(to_head and 'LPUSH' or 'RPUSH', tenants .. ':' .. tenant, id .. ' ' .. ticket)
  if class == 'batch' or class == 'alone.batch' then
    apply('ZADD', key('core:aging'), 'LT', integer(placed_at), pool .. ' ' .. class .. ' ' .. tenant)
  end
  if not apply('ZSCORE', tenants, tenant) then
    local served = apply('HMGET', served_of(pool, class), 't:' .. tenant, 'floor')
    local counter = tonumber(served[1]) or 0
    local least = redis.call('ZRANGE', tenants, 0, 0, 'WITHSCORES')
    local floor = tonumber(least[2]) or tonumber(served[2]) or 0
    -- Whatever is compared with what is no number is false: such a counter begins anew.
    redis.call('ZADD', tenants, counter > floor and counter or floor == floor and floor or 0, tenant)
    apply('SADD', key('core:pools'), pool)
  end
end

-- How long it is remembered whose turn it was in a quarantine that nobody uses (ms).
local QUARANTINE_LIFE = 86400000

local function let_wait_alone(id, ticket, pool, priority, tenant, placed_at, to_head, now)
  if apply('SADD', key('core:alone'), pool) == 1 then
    apply('HSET', quarantine_of(pool), 'since', integer(now))
    redis.call('PEXPIRE', quarantine_of(pool), QUARANTINE_LIFE)
  end
  let_wait(id, ticket, pool, alone_class(priority), tenant, placed_at, to_head)
end

local function charge(pool, priority, tenant, tokens)
  if tokens > 0 then
    local served = served_of(pool, priority)
    if tonumber(apply('HINCRBYFLOAT', served, 't:' .. tenant, tokens)) == tokens then
      -- It had no counter, which is as much as the floor.
      apply('HINCRBYFLOAT', served, 't:' .. tenant, tonumber(redis.call('HGET', served, 'floor') or '0') or 0)
    end
    apply('ZADD', tenants_of(pool, priority), 'XX', 'INCR', tokens, tenant)
  end
end

-- Ends a running attempt's hold of the job.
local function let_go(id, worker)
  apply('ZREM', leases, 'j ' .. id)
  if worker then
    apply('HDEL', drawn_of(worker), id)
  end
end

-- Hands a job back to the database.
local function add_outcome(id, kind, now, error, input, reason, dispatch, attempt, draw, worker, run, offset, deaths)
  apply('XADD', key('core:outcomes'), '*', 'v', VERSION, 'job', id, 'kind', kind,
    'dispatch', dispatch, 'attempt', attempt, 'draw', draw, 'worker', worker, 'run', run, 'offset', offset,
    'deaths', deaths, 'at', integer(now), 'error', error, 'input', input, 'reason', reason)
end

local function write_outcome(id, kind, now, error)
  local name = job_of(id)
  local dispatch, attempt, draw, worker, run, offset, deaths =
    read(name, 'dispatch', 'attempt', 'draw', 'worker', 'run', 'offset', 'deaths')
  add_outcome(id, kind, now, error or '', '0', '', integer(whole(dispatch, MAX_TOKENS) or 0),
    integer(whole(attempt, MAX_TOKENS) or 0), draw or '', worker or '', integer(whole(run, MAX_RUN) or 0),
    integer(whole(offset, MAX_TOKENS) or 0), integer(whole(deaths, MAX_TOKENS) or 0))
  -- Should it go on, it is placed with its payload: meanwhile that would take memory which placing needs.
  redis.call('HDEL', name, 'body')
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
    redis.call('HSET', name, 'state', 'withdrawn', 'fence', '')
    write_outcome(id, 'withdrawn', now)
    return 'withdrawn'
  end
  apply('ZREM', leases, 'j ' .. id)
  set_aside(id, where)
  return 'set_aside'
end

-- A job's worker is gone, or gives it back: it waits again, where it was or behind the others, unless somebody wants it
-- ended.
-- Returns what became of it.
local function return_to_pool(id, now, avoid, to_tail)
  local name = job_of(id)
  local cancel, deadline, pool, priority, tenant, ticket, run, offset, n, deaths, placed_at, alone =
    read(name, 'cancel', 'deadline', 'pool', 'priority', 'tenant', 'ticket', 'run', 'offset', 'n', 'deaths',
      'placed_at', 'alone')
  local ending = cancel
  deadline = whole(deadline, MAX_INTEGER)
  if ending == '' and deadline and deadline > 0 and deadline <= now then
    ending = 'expired'
  end
  if is_requested_end(ending) then
    write_outcome(id, ending, now)
    close(id, ending, now)
    return ending
  end
  ticket, run, offset, n, deaths = whole(ticket, MAX_INTEGER - 1), whole(run, MAX_RUN), whole(offset, MAX_TOKENS),
    whole(n, MAX_INTEGER - 1), whole(deaths, MAX_TOKENS)
  local is_readable = cancel == '' and deadline and ticket and run and offset and n and deaths
    and is_word(pool) and is_priority(priority) and is_name(tenant)
  if not is_readable or not say(id, run, offset, n + 1, 'rerouted', '{}') then
    return give_up(id, now, 'return')
  end
  ticket = integer(ticket + 1)
  redis.call('HSET', name, 'state', WAITING, 'ticket', ticket, 'n', integer(n + 1), 'fence', '', 'alone', '0',
    'avoid', avoid, 'avoid_until', integer(now + AVOID_LIFE))
  placed_at = whole(placed_at, MAX_INTEGER) or now
  if deaths >= DEATHS_BEFORE_ALONE then
    let_wait_alone(id, ticket, pool, priority, tenant, placed_at, alone == '1' and not to_tail, now)
    wake_all(pool, now)
  else
    let_wait(id, ticket, pool, priority, tenant, placed_at, not to_tail)
    wake_one(pool, now, avoid)
  end
  return WAITING
end

-- A job that need not run alone any more waits among the others again.
local function leave_quarantine(id)
  local pool, priority, tenant, ticket, placed_at =
    read(job_of(id), 'pool', 'priority', 'tenant', 'ticket', 'placed_at')
  placed_at = whole(placed_at, MAX_INTEGER)
  if placed_at and ticket and is_word(pool) and is_priority(priority) and is_name(tenant) then
    local tenants, now = tenants_of(pool, alone_class(priority)), now_ms()
    if apply('LREM', tenants .. ':' .. tenant, 1, id .. ' ' .. ticket) == 1 then
      if redis.call('EXISTS', tenants .. ':' .. tenant) == 0 then
        apply('ZREM', tenants, tenant)
      end
      let_wait(id, ticket, pool, priority, tenant, placed_at, true)
      wake_one(pool, now, '')
    end
  end
end

-- Whose lease ran out and who still speaks was cut off, and not dead: that loss counts no longer.
local function exonerate(id, draw)
  local name = job_of(id)
  local lost, deaths, state = read(name, 'lost', 'deaths', 'state')
  if draw ~= '' and lost == draw then
    redis.call('HSET', name, 'lost', '')
    deaths = whole(deaths, MAX_TOKENS)
    if deaths and deaths > 0 then
      redis.call('HSET', name, 'deaths', integer(deaths - 1))
      if state == WAITING and deaths == DEATHS_BEFORE_ALONE then
        leave_quarantine(id)
      end
    end
  end
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
  local job_fence, job_run, job_offset, n, state, worker, pool, priority, tenant, weight, deaths, max_tokens =
    read(name, 'fence', 'run', 'offset', 'n', 'state', 'worker', 'pool', 'priority', 'tenant', 'weight', 'deaths',
      'max_tokens')
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
  ending.dispatch, ending.attempt = dispatch, attempt
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
    charge(ending.pool, ending.priority, ending.tenant, ending.made / ending.weight)
  end
  return integer(ending.end_offset)
end

-- What a worker's write is answered that does not count.
local function refuse_ending(ending, now, where)
  if ending.code == 'fenced' then
    exonerate(ending.id, ending.draw)
  elseif ending.code == 'unreadable' then
    give_up(ending.id, now, where)
  end
  return {ending.code, ending.stands_at}
end
