-- Tenants whose jobs end one process after another, in pools that others use. Each of these is set apart: its jobs run in
-- processes that run nothing else meanwhile. The decisions are those of tether/scheduling/apart.py.

-- In a table, since a script has no room for so many local names.
local APART = {
  -- After so many deaths that made its jobs suspects, in the open, a tenant can be set apart.
  DEATHS = 2,
  -- Of a pool so many tenants are watched, and for so long after the last such death (ms).
  MAX_WATCHED = 16,
  LIFE = 3600000,
  -- So many of its jobs in a row that did no harm set it free; after each time twice as many, up to the most.
  FIRST_NEEDED = 4,
  MAX_NEEDED = 64,
  -- After so long at the latest others may run beside its jobs (ms).
  MAX_PROOF_MS = 30000,
  -- For so long after their last draw others use the pool (ms).
  OTHERS_LIFE = 30000,
  -- Where others want one, a turn is so long (ms). Then these come first for as long as it took, between so many ms.
  TURN_MS = 5000,
  MIN_REST_MS = 2000,
  MAX_REST_MS = 300000,
  -- For so long a worker that died in its turn is starting again, and the turn is its (ms).
  RESTART_MS = 60000,
  -- Processes whose suspects are remembered, and how many of these leave the quarantine at once.
  MAX_GROUPS = 4,
  MAX_LEAVING = 256,
}

-- What is known of a pool's tenants.
local function apart_of(pool)
  return key('apart:' .. pool)
end

-- Of which tenant that is apart a process runs jobs, and nothing else.
local function run_of(worker)
  return key('apart_run:' .. worker)
end

local function note_apart(pool, ...)
  apply('HSET', apart_of(pool), ...)
  redis.call('PEXPIRE', apart_of(pool), APART.LIFE)
end

local function read_watched(tenant, text, now)
  local seen, deaths, jobs, since, ran, proofs, needed, turned =
    string.match(text, '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$')
  if seen and tonumber(seen) + APART.LIFE > now then
    return {tenant = tenant, seen = tonumber(seen), deaths = tonumber(deaths), jobs = tonumber(jobs),
      since = tonumber(since), ran = tonumber(ran), proofs = tonumber(proofs), needed = tonumber(needed),
      turned = tonumber(turned)}
  end
end

local function write_watched(pool, record)
  note_apart(pool, 't:' .. record.tenant, table.concat({integer(record.seen), integer(record.deaths),
    integer(record.jobs), integer(record.since), integer(record.ran), integer(record.proofs), integer(record.needed),
    integer(record.turned)}, ' '))
end

-- What is known of a pool's tenants: `watched` by name, those that are `apart` in the order of their turns, whose `turn`
-- it is, until when others come first, and when these were last given jobs; nil where nothing is.
local function read_apart(pool, now)
  local values = apply('HGETALL', apart_of(pool))
  if #values == 0 then
    return nil
  end
  local state = {pool = pool, watched = {}, apart = {}, others = 0, rest = 0, groups = ''}
  for i = 1, #values, 2 do
    local field, text = values[i], values[i + 1]
    local tenant = string.match(field, '^t:(.+)$')
    if tenant then
      local record = read_watched(tenant, text, now)
      state.watched[tenant] = record
      if not record then
        redis.call('HDEL', apart_of(pool), field)
      elseif record.since > 0 then
        state.apart[#state.apart + 1] = record
      end
    elseif field == 'turn' then
      local began, until_ms, ended, worker = string.match(text, '^(%d+) (%d+) (%d+) (%S+)$')
      if began then
        state.turn = {began = tonumber(began), until_ms = tonumber(until_ms), ended = tonumber(ended), worker = worker}
      end
    elseif field == 'others' or field == 'rest' then
      state[field] = whole(text, MAX_INTEGER) or 0
    elseif field == 'groups' then
      state.groups = text
    end
  end
  table.sort(state.apart, function(one, other)
    return one.turned < other.turned or one.turned == other.turned and one.tenant < other.tenant
  end)
  return state
end

local function write_turn(pool, turn)
  note_apart(pool, 'turn', table.concat({integer(turn.began), integer(turn.until_ms), integer(turn.ended), turn.worker}, ' '))
end

local function is_apart(state, tenant)
  local record = state and state.watched[tenant]
  return record and record.since > 0 or false
end

-- Whether jobs wait in a pool of other tenants than this one or, where none is named, than those that are apart.
local function do_others_wait(pool, state, but)
  for _, priority in ipairs({'interactive', 'standard', 'batch'}) do
    for _, tenant in ipairs(apply('ZRANGE', tenants_of(pool, priority), 0, APART.MAX_WATCHED)) do
      if but and tenant ~= but or not but and not is_apart(state, tenant) then
        return true
      end
    end
  end
  return false
end

-- Whether others were given jobs a short time ago. A clock that was set back makes that no longer.
local function were_others_served(state, now)
  return state.others + APART.OTHERS_LIFE > now and state.others <= now
end

-- The tenant of whose jobs a process runs nothing else; when these have shown that they do no harm, or 0 once that counted.
local function write_run(worker, proved_at, pool, tenant)
  redis.call('SET', run_of(worker), integer(proved_at) .. ' ' .. pool .. ' ' .. tenant, 'PX', MAX_LEASE)
end

local function read_run(text, now)
  local proved_at, pool, tenant = string.match(text or '', '^(%d+) (%S+) (.+)$')
  proved_at = tonumber(proved_at)
  return proved_at and {pool = pool, tenant = tenant, is_counted = proved_at == 0,
    is_proved = proved_at <= now or proved_at > now + APART.MAX_PROOF_MS, left = proved_at - now}
end

-- Jobs of a tenant that is apart did no harm. Enough of them set it free.
local function note_proofs(record, pool, count, now)
  record.proofs = record.proofs + count
  if record.proofs >= record.needed then
    record.since, record.deaths, record.jobs, record.proofs = 0, 0, 0, 0
    record.needed = math.min(APART.MAX_NEEDED, 2 * record.needed)
    wake_all(pool, now)
  end
  write_watched(pool, record)
end

-- A job has ended well: what that tells of others in its pool, and of its tenant.
local function note_good_end(id, worker, pool, tenant, now)
  if apply('SISMEMBER', key('core:alone'), pool) == 1 then
    note_survival(id, pool, now)
    local run = read_run(apply('GET', run_of(worker)), now)
    if run and not run.is_counted and run.pool == pool and run.tenant == tenant then
      local state = read_apart(pool, now)
      if is_apart(state, tenant) then
        note_proofs(state.watched[tenant], pool, 1, now)
      end
    end
  end
end
