-- A process of a worker has ended, as who watched it says. What it ran waits again at once; where the process was not told
-- to end, one of these may be the cause.
-- ARGV: epoch, worker, process, how
-- Returns: {'epoch'}, {'fenced'} (no such process has drawn under this boot id, or its key was revoked: nothing was
-- written), {'known'} (it was said before), or {'ok', what became of its job...}
pass_memory_limit()
if is_stale(ARGV[1]) then
  return {'epoch'}
end
local _, worker, process, how = unpack(ARGV)
if #ARGV ~= 4 or not is_word(worker) or not is_word(process)
    or not string.find(how, '^%l+$') and not string.find(how, '^%l+ %d%d?%d?$') or #how > 32 then
  return refuse('gone: a worker, a process and how it ended are needed')
end
-- So long it is known that a process is gone (ms).
local GONE_LIFE = 600000
local GONE = ' gone'
-- Deaths of which a job's hash tells, and of which it is known for a worker, and for how long (ms).
local MAX_EVIDENCE = 16
local MAX_DIED = 32
local DIED_LIFE = 3600000
-- Deaths alone that make a job poison, others having ended well in between; and so many more without that.
local LONE_DEATHS = 2
local MAX_VAIN = 3
-- So many more of each where the process was killed, and not for want of memory, or where nobody saw how it ended.
local WEAK_DEATHS = 2

local now = now_ms()
local registered = apply('GET', process_of(worker))
if registered == GONE then
  return {'known'}
end
local lead_boot, lead_process = string.match(apply('GET', lead_of(worker)) or '', '^(%d+) (%S+)$')
local leads = lead_process == process and lead_boot == string.match(worker, '%.(%d+)$')
if is_revoked(worker) or registered ~= process and (registered or not leads) then
  return {'fenced'}
end

-- What it ran, and what was taken from it since.
local dead = {}
local drawn = apply('HGETALL', drawn_of(worker))
for i = 1, #drawn, 2 do
  local state, its_worker, drawn_at, pool, tenant, suspicion, group, alone, deaths, evidence =
    read(job_of(drawn[i]), 'state', 'worker', 'drawn_at', 'pool', 'tenant', 'suspicion', 'group', 'alone', 'deaths', 'evidence')
  if state == RUNNING and its_worker == worker then
    dead[#dead + 1] = {id = drawn[i], number = whole(drawn[i + 1], MAX_INTEGER) or 0,
      ran = math.max(0, now - (whole(drawn_at, MAX_INTEGER) or now)), pool = pool or '', tenant = tenant or '',
      held = read_suspicion(suspicion), group = group, alone = alone, deaths = deaths, evidence = evidence}
  end
end
local given_up = apply('HGETALL', given_up_by(worker))
for i = 1, #given_up, 2 do
  local state, lost, pool, tenant, suspicion, group, deaths, evidence =
    read(job_of(given_up[i]), 'state', 'lost', 'pool', 'tenant', 'suspicion', 'group', 'deaths', 'evidence')
  local draw, ran = string.match(given_up[i + 1], '^(%S+) (%d+)$')
  ran = whole(ran, MAX_INTEGER)
  if (state == WAITING or state == RUNNING) and ran and lost == draw then
    dead[#dead + 1] = {id = given_up[i], number = 0, ran = ran, pool = pool or '', tenant = tenant or '',
      held = read_suspicion(suspicion), group = group, deaths = deaths, evidence = evidence, is_taken = true, runs_again = state == RUNNING}
  end
end

-- In the order in which they waited.
table.sort(dead, function(one, other)
  return one.number < other.number or one.number == other.number and one.id < other.id
end)

-- Jobs that ran for no longer than they did until an earlier death.
local suspects, is_suspect = {}, {}

local function boots_in(deaths)
  local boots = {}
  for _, death in ipairs(deaths) do
    boots[death.boot or ''] = true
  end
  return boots
end

-- Whether the worker died meanwhile where this job did not run.
local function died_without(job)
  local boots = boots_in(job.deaths_told)
  for _, entry in ipairs(apply('LRANGE', key('died:' .. worker_of(worker)), 0, -1)) do
    local at, boot = string.match(entry, '^(%d+) (%S+)$')
    if at and tonumber(at) >= job.held.first and not boots[boot] then
      return true
    end
  end
  return false
end

local function is_poison(job)
  local held = job.held
  if held.lone == 0 or has_survivors(held, job.pool) then
    held.lone = held.lone + 1
  else
    held.vain = held.vain + 1
  end
  held.survived, held.at = survived_in(job.pool), now
  local has_died_without = died_without(job)
  local more = (how == 'signal 9' or how == 'unknown') and WEAK_DEATHS or 0
  return held.lone >= LONE_DEATHS + more + (has_died_without and 1 or 0)
    or held.vain >= MAX_VAIN + more and not has_died_without
end

local function note_evidence(job)
  local is_read, deaths = pcall(cjson.decode, job.evidence or '')
  deaths = is_read and type(deaths) == 'table' and deaths or {}
  if #deaths >= MAX_EVIDENCE then
    -- The first one stays: it tells when this began.
    table.remove(deaths, 2)
  end
  job.death = {boot = worker, how = how, at = now, ran = job.ran, beside = #dead - 1, group = job.group or '',
    alone = job.alone == '1'}
  deaths[#deaths + 1] = job.death
  job.deaths_told = deaths
  redis.call('HSET', job_of(job.id), 'deaths', integer(math.min((whole(job.deaths, MAX_TOKENS) or 0) + 1, MAX_TOKENS)),
    'evidence', cjson.encode(deaths))
end

local function hold_against(job, group)
  redis.call('HSET', job_of(job.id), 'group', group, 'proof', integer(math.min(proof_of(job.ran), BLAME.MAX_PROOF_MS)),
    'suspicion', suspicion_of(job.ran, job.held))
end

-- Who was tried together with the cause, or waits for that in its group, and was not the cause.
local function acquit_others(job)
  if job.alone == '1' and is_name(job.group) then
    for _, other in ipairs(waiting_suspects(job.pool, job.group)) do
      if not is_suspect[other.id] then
        leave_quarantine(other.id, now)
      end
    end
  end
end

local poisonous = {}
if how ~= 'ended' and how ~= 'host' then
  local died = key('died:' .. worker_of(worker))
  apply('LPUSH', died, integer(now) .. ' ' .. worker)
  redis.call('LTRIM', died, 0, MAX_DIED - 1)
  redis.call('PEXPIRE', died, DIED_LIFE)
  for _, job in ipairs(dead) do
    note_evidence(job)
    if job.held and not job.runs_again and job.ran <= proof_of(job.held.ran) then
      suspects[#suspects + 1], is_suspect[job.id] = job, true
    else
      job.held = {first = now, lone = 0, vain = 0, survived = 0, at = 0}
      hold_against(job, '')
    end
  end
  local states = note_tenants(worker, dead, is_suspect, now)
  for _, job in ipairs(suspects) do
    if #dead == 1 and is_poison(job) then
      poisonous[job.id] = true
    elseif is_found_apart(states, job, now) then
      hold_against(job, '')
    else
      job.is_tried = true
      hold_against(job, worker)
      apply('RPUSH', suspects_of(job.pool, worker), job.id)
      redis.call('PEXPIRE', suspects_of(job.pool, worker), QUARANTINE_LIFE)
    end
  end
  for _, job in ipairs(suspects) do
    acquit_others(job)
  end
end

local answer = {'ok'}

local function hand_back(job)
  if poisonous[job.id] then
    let_go(job.id, worker)
    log_attempt(job.id, now, 'died', 'end', job.death)
    redis.call('HSET', job_of(job.id), 'state', 'poisoned', 'fence', '')
    write_outcome(job.id, 'poisoned', now)
    answer[#answer + 1] = 'poisoned'
  elseif not job.is_taken then
    let_go(job.id, worker)
    answer[#answer + 1] = return_to_pool(job.id, now, worker, job.death and 'died' or 'gone', false, job.death)
  end
end

-- What waits behind others comes in its order, what waits in front of them the other way round.
local function waits_behind(job)
  return job.is_tried and job.alone ~= '1'
end
for _, job in ipairs(dead) do
  if waits_behind(job) then
    hand_back(job)
  end
end
for i = #dead, 1, -1 do
  if not waits_behind(dead[i]) then
    hand_back(dead[i])
  end
end
redis.call('DEL', drawn_of(worker), given_up_by(worker))
leave_idle(worker)
if apply('ZREM', leases, 'w ' .. worker) == 1 then
  local pool = apply('HGET', key('core:woken'), worker)
  apply('HDEL', key('core:woken'), worker)
  if pool then
    wake_one(pool, now, worker)
  end
end
redis.call('DEL', key('wake:' .. worker))
if leads then
  redis.call('DEL', lead_of(worker))
end
redis.call('SET', process_of(worker), GONE, 'PX', GONE_LIFE)
return answer
