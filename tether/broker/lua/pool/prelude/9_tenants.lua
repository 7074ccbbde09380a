-- What the death of a process tells of the tenants whose jobs it ran. The decisions are those of
-- tether/scheduling/apart.py.

-- How many jobs of each tenant in a pool became suspects by a death in the open, and the shortest time for which one of its
-- jobs ran. Returns that by tenant, and the tenants in order.
local function count_by_tenant(dead, pool, is_suspect)
  local by_tenant, tenants = {}, {}
  for _, job in ipairs(dead) do
    if job.pool == pool then
      local found = by_tenant[job.tenant]
      if not found then
        found = {suspects = 0, ran = job.ran}
        by_tenant[job.tenant], tenants[#tenants + 1] = found, job.tenant
      end
      found.ran = math.min(found.ran, job.ran)
      found.suspects = found.suspects + (is_suspect[job.id] and job.alone ~= '1' and 1 or 0)
    end
  end
  table.sort(tenants)
  return by_tenant, tenants
end

-- Makes room for one more tenant: those that are apart are remembered first, then those that were seen last.
local function forget_one(state)
  local count, oldest = 0, nil
  for _, record in pairs(state.watched) do
    local is_older = not oldest or (record.since > 0) == (oldest.since > 0)
      and (record.seen < oldest.seen or record.seen == oldest.seen and record.tenant < oldest.tenant)
      or record.since == 0 and oldest.since > 0
    count, oldest = count + 1, is_older and record or oldest
  end
  if count >= APART.MAX_WATCHED then
    state.watched[oldest.tenant] = nil
    redis.call('HDEL', apart_of(state.pool), 't:' .. oldest.tenant)
  end
end

-- Counts a death in the open against the tenants of its suspects. Returns those that are set apart by it: who was part
-- of most such deaths, and with the most jobs.
local function count_against(state, by_tenant, tenants, now)
  local counted, likeliest = {}, {}
  for _, tenant in ipairs(tenants) do
    local found = by_tenant[tenant]
    if found.suspects > 0 and not is_apart(state, tenant) then
      local record = state.watched[tenant]
      if not record then
        forget_one(state)
        record = {tenant = tenant, deaths = 0, jobs = 0, since = 0, ran = 0, proofs = 0, needed = APART.FIRST_NEEDED,
          turned = 0}
        state.watched[tenant] = record
      end
      record.seen, record.deaths, record.jobs = now, record.deaths + 1, record.jobs + found.suspects
      record.ran = math.max(record.ran, found.ran)
      counted[#counted + 1] = record
    end
  end
  for _, record in ipairs(counted) do
    if state.watched[record.tenant] == record then
      local first = likeliest[1] or {deaths = APART.DEATHS, jobs = 0}
      if record.deaths > first.deaths or record.deaths == first.deaths and record.jobs > first.jobs then
        likeliest = {record}
      elseif record.deaths == first.deaths and record.jobs == first.jobs then
        likeliest[#likeliest + 1] = record
      end
    end
  end
  for _, record in ipairs(likeliest) do
    record.since, record.proofs = now, 0
    state.apart[#state.apart + 1] = record
  end
  for _, record in ipairs(counted) do
    if state.watched[record.tenant] == record then
      write_watched(state.pool, record)
    end
  end
  return likeliest
end

-- Suspects wait among the others again. What is held against them stays.
local function let_out(ids, left, now)
  for i = 1, math.min(#ids, left) do
    local held = read(job_of(ids[i]), 'suspicion')
    leave_quarantine(ids[i], now)
    redis.call('HSET', job_of(ids[i]), 'suspicion', held or '')
  end
  return left - math.min(#ids, left)
end

-- Which of a tenant's jobs wait to run alone, and did not die alone yet.
local function waiting_together(pool, tenant)
  local found = {}
  for _, priority in ipairs({'interactive', 'standard', 'batch'}) do
    local list = tenants_of(pool, alone_class(priority)) .. ':' .. tenant
    for _, entry in ipairs(apply('LRANGE', list, 0, APART.MAX_LEAVING - 1)) do
      local id, ticket = string.match(entry, '^(.+) (%d+)$')
      local state, its_ticket, its_pool, its_priority, its_tenant, suspicion =
        read(job_of(id or ''), 'state', 'ticket', 'pool', 'priority', 'tenant', 'suspicion')
      local held = read_suspicion(suspicion)
      if state == WAITING and its_ticket == ticket and its_pool == pool and its_priority == priority
          and its_tenant == tenant and held and held.lone == 0 then
        found[#found + 1] = id
      end
    end
  end
  return found
end

-- Who the cause is is known well enough: those that became suspects in the open leave the quarantine, and so do all jobs
-- of the tenants that are apart now, which are found apart from everybody's.
local function empty_quarantine(state, set_apart, now)
  local left = APART.MAX_LEAVING
  for group in string.gmatch(state.groups, '%S+') do
    local ids = {}
    for i, other in ipairs(left > 0 and waiting_suspects(state.pool, group) or {}) do
      ids[i] = other.id
    end
    left = let_out(ids, left, now)
  end
  for _, record in ipairs(set_apart) do
    left = let_out(waiting_together(state.pool, record.tenant), left, now)
  end
end

local function note_group(state, worker)
  local kept, count = worker, 1
  for group in string.gmatch(state.groups, '%S+') do
    if count < APART.MAX_GROUPS then
      kept, count = kept .. ' ' .. group, count + 1
    end
  end
  note_apart(state.pool, 'groups', kept)
end

-- A death in the open, of jobs of one pool.
local function note_open_death(state, worker, dead, by_tenant, tenants, now)
  local set_apart = count_against(state, by_tenant, tenants, now)
  if #set_apart == 0 then
    return note_group(state, worker)
  end
  local are_others = do_others_wait(state.pool, state)
  for _, job in ipairs(dead) do
    are_others = are_others or not is_apart(state, job.tenant)
  end
  state.others = are_others and now or 0
  -- Suspects of this death wait for trials, and leave the quarantine with the next tenant that is set apart.
  note_apart(state.pool, 'others', integer(state.others), 'groups', worker)
  apply('SADD', key('core:alone'), state.pool)
  empty_quarantine(state, set_apart, now)
end

-- Notes a death of which somebody knows. dead: all jobs of the process, some of other pools; is_suspect: by their ids.
-- Returns by pool what is known of its tenants now.
local function note_tenants(worker, dead, is_suspect, now)
  local run = read_run(apply('GET', run_of(worker)), now)
  redis.call('DEL', run_of(worker))
  local states, pools, is_mixed = {}, {}, false
  for _, job in ipairs(dead) do
    is_mixed = is_mixed or job.tenant ~= dead[1].tenant
    if states[job.pool] == nil then
      states[job.pool], pools[#pools + 1] = read_apart(job.pool, now) or false, job.pool
    end
  end
  for _, pool in ipairs(pools) do
    local state = states[pool]
    local by_tenant, tenants = count_by_tenant(dead, pool, is_suspect)
    if state and state.turn and state.turn.worker == worker then
      state.turn.ended = now
      write_turn(pool, state.turn)
    end
    local has_suspects = false
    for _, found in pairs(by_tenant) do
      has_suspects = has_suspects or found.suspects > 0
    end
    if run and run.pool == pool and not run.is_proved and is_apart(state, run.tenant) and by_tenant[run.tenant] then
      local record = state.watched[run.tenant]
      record.seen, record.proofs, record.ran = now, 0, math.max(record.ran, by_tenant[run.tenant].ran)
      write_watched(pool, record)
    elseif has_suspects and (is_mixed or state and were_others_served(state, now)
        or do_others_wait(pool, nil, dead[1].tenant)) then
      state = state or {pool = pool, watched = {}, apart = {}, others = 0, rest = 0, groups = ''}
      states[pool] = state
      note_open_death(state, worker, dead, by_tenant, tenants, now)
    end
  end
  return states
end

-- Whether a suspect waits among its tenant's other jobs: these run apart from everybody's, where it is found as well.
local function is_found_apart(states, job, now)
  local state = states[job.pool]
  return state and job.held.lone == 0 and is_apart(state, job.tenant)
    and (#state.apart > 1 or were_others_served(state, now) or do_others_wait(job.pool, state))
end
