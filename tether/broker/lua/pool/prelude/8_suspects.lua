-- Which jobs may have ended the process that ran them, and when they have shown that they did not. The decisions are those
-- of tether/scheduling/blame.py.

local BLAME = {
  -- A job has survived where it ran for so many times as long as until the last death, and for so much longer (ms).
  PROOF_FACTOR = 2,
  PROOF_MS = 3000,
  -- No worker keeps itself free for longer than this beside what it tries (ms).
  MAX_PROOF_MS = 600000,
  -- Between two deaths of a job alone others that end well must have run for so many times as long as it did.
  SURVIVAL_FACTOR = 10,
  -- For so long a job that died alone waits for that (ms).
  SURVIVAL_PATIENCE = 60000,
  -- Jobs that must run alone get what is left over, for so long (ms).
  ALONE_PATIENCE = 5000,
}

-- What is held against a job: how long it had run at its last death (ms), when its first one was, how often it died
-- alone after others had ended well and without that, and how long others had run and when the last such death was.
local function read_suspicion(text)
  local ran, first, lone, vain, survived, at = string.match(text or '', '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$')
  if ran then
    return {ran = tonumber(ran), first = tonumber(first), lone = tonumber(lone), vain = tonumber(vain),
      survived = tonumber(survived), at = tonumber(at)}
  end
end

local function suspicion_of(ran, held)
  return table.concat({integer(ran), integer(held.first), integer(held.lone), integer(held.vain), integer(held.survived),
    integer(held.at)}, ' ')
end

-- For how long a job must run to show that it was not the cause (ms).
local function proof_of(ran)
  return BLAME.PROOF_FACTOR * ran + BLAME.PROOF_MS
end

-- For how long jobs that ended well have run while others waited in the pool's quarantine (ms).
local function survived_in(pool)
  return whole(apply('HGET', quarantine_of(pool), 'survived'), MAX_INTEGER) or 0
end

-- A job has ended well: that tells something of those that wait in its pool's quarantine.
local function note_survival(id, pool, now)
  local drawn_at = whole(read(job_of(id), 'drawn_at'), MAX_INTEGER) or now
  apply('HINCRBY', quarantine_of(pool), 'survived', integer(math.max(1, now - drawn_at)))
  redis.call('PEXPIRE', quarantine_of(pool), QUARANTINE_LIFE)
end

-- A job is handed over: nothing is held against it any more where it ran for longer than it could have.
local function note_hand_over(id, now)
  local name = job_of(id)
  local suspicion, drawn_at = read(name, 'suspicion', 'drawn_at')
  local held = read_suspicion(suspicion)
  drawn_at = whole(drawn_at, MAX_INTEGER)
  if held and drawn_at and now - drawn_at > proof_of(held.ran) then
    redis.call('HSET', name, 'group', '', 'suspicion', '')
  end
end

-- A job comes to a pool: how others fared until now, which each pool counts for itself, shows nothing of it.
local function note_arrival(id, pool)
  local held = read_suspicion(read(job_of(id), 'suspicion'))
  if held then
    held.survived = survived_in(pool)
    redis.call('HSET', job_of(id), 'suspicion', suspicion_of(held.ran, held))
  end
end

-- Whether others have run for long enough, and ended well, since a job died alone.
local function has_survivors(held, pool)
  return survived_in(pool) - held.survived >= BLAME.SURVIVAL_FACTOR * math.max(held.ran, 1)
end

-- For how much longer a job that died alone waits for others to end well first (ms); 0: it need not.
local function wait_for_survivors(suspicion, pool, now)
  local held = read_suspicion(suspicion)
  if not held or held.lone == 0 or held.at > now or held.at + BLAME.SURVIVAL_PATIENCE <= now
      or has_survivors(held, pool) then
    return 0
  end
  return held.at + BLAME.SURVIVAL_PATIENCE - now
end

-- Whether jobs of the pool's quarantine are tried now, beside which nothing else may run.
local function is_trying(pool, now)
  local tried, proved_at = unpack(apply('HMGET', quarantine_of(pool), 'tried', 'proved_at'))
  proved_at = whole(proved_at, MAX_INTEGER)
  if not tried or not proved_at or proved_at <= now or proved_at > now + BLAME.MAX_PROOF_MS then
    return false
  end
  for id in string.gmatch(tried, '[^\n]+') do
    local state, alone = read(job_of(id), 'state', 'alone')
    if state == RUNNING and alone == '1' then
      return true
    end
  end
  return false
end

-- Members of a group that wait, but for one of them.
local function waiting_suspects(pool, group, but)
  local found = {}
  for _, id in ipairs(apply('LRANGE', suspects_of(pool, group), 0, 1023)) do
    local state, its_group, its_pool, priority, tenant, ticket =
      read(job_of(id), 'state', 'group', 'pool', 'priority', 'tenant', 'ticket')
    if id ~= but and state == WAITING and its_group == group and its_pool == pool and is_priority(priority)
        and is_name(tenant) and ticket then
      found[#found + 1] = {id = id, priority = priority, tenant = tenant, ticket = ticket}
    end
  end
  return found
end

-- Another of its group was the cause: such a job waits among the others again.
local function leave_quarantine(id, now)
  local name = job_of(id)
  redis.call('HSET', name, 'group', '', 'suspicion', '')
  local pool, priority, tenant, ticket, placed_at = read(name, 'pool', 'priority', 'tenant', 'ticket', 'placed_at')
  local tenants = tenants_of(pool, alone_class(priority))
  if apply('LREM', tenants .. ':' .. tenant, 1, id .. ' ' .. ticket) == 1 then
    if redis.call('EXISTS', tenants .. ':' .. tenant) == 0 then
      apply('ZREM', tenants, tenant)
    end
    let_wait(id, ticket, pool, priority, tenant, whole(placed_at, MAX_INTEGER) or now, true)
    wake_one(pool, now, '')
  end
end
