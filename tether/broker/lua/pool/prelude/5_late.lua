-- Standard jobs that interactive ones keep waiting: a pool in which one has waited for long owes the class a share of what
-- it makes. docs/decisions/fairness.md says why.

-- What is known of a pool whose standard jobs are late: until when, the age from which they are, their share (per mille),
-- how many tokens of interactive jobs come before the next of them, and how many the pool made since `began` and in the
-- time of an age before that. nil where they are not late.
local function read_late(text, now)
  local until_ms, age, share, debt, began, former, current =
    string.match(text or '', '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$')
  until_ms, age, share, began = tonumber(until_ms), tonumber(age), whole(share, 999), tonumber(began)
  if not until_ms or until_ms <= now or until_ms > now + FAIR.LATE_LIFE or not share or share == 0 then
    return nil
  end
  former, current = tonumber(former), tonumber(current)
  if began > now or began + 2 * age <= now then
    began, former, current = now, 0, 0
  elseif began + age <= now then
    began, former, current = began + age, current, 0
  end
  return {until_ms = until_ms, age = age, share = share, debt = tonumber(debt), began = began, former = former,
    current = current}
end

-- renewed_at: when they were found late once more, or nil.
local function write_late(pool, state, renewed_at)
  state.until_ms = renewed_at and renewed_at + FAIR.LATE_LIFE or state.until_ms
  local function number(value)
    return integer(math.min(math.ceil(value), MAX_INTEGER))
  end
  apply('HSET', key('core:late'), pool, table.concat({integer(state.until_ms), integer(state.age), integer(state.share),
    number(state.debt), integer(state.began), number(state.former), number(state.current)}, ' '))
end

-- A worker has drawn jobs, or made tokens. totals: by pool and priority, their price.
local function note_classes(worker_id, totals, now)
  local texts = apply('HGETALL', key('core:late'))
  if #texts == 0 then
    return
  end
  local asked = string.match(apply('HGET', key('core:asked'), worker_id) or '', '^%d+ ([^\t]*)') or ''
  local states, count, passing = {}, 0, 0
  for i = 1, #texts, 2 do
    local state = read_late(texts[i + 1], now)
    if state and (totals[texts[i]] or is_listed(asked, texts[i])) then
      states[texts[i]], count = state, count + 1
    end
  end
  for _, of_pool in pairs(totals) do
    passing = passing + (of_pool.interactive or 0)
  end
  -- Whether interactive jobs wait for this worker.
  local function are_passed()
    local lanes = {}
    for pool in string.gmatch(asked, '%S+') do
      lanes[#lanes + 1] = tenants_of(pool, 'interactive')
    end
    return #lanes > 0 and redis.call('EXISTS', unpack(lanes)) > 0
  end
  for pool, state in pairs(states) do
    local own, passed = totals[pool] and totals[pool].standard or 0, passing / count
    state.debt = math.max(0, state.debt - passed)
    state.current = state.current + passed + own
    if own > 0 then
      local owed = state.debt + own * (1000 - state.share) / state.share
      -- What they got while nobody more urgent waited keeps them back for no longer than the pool takes to be late.
      state.debt = are_passed() and owed or math.max(state.debt, math.min(owed, state.former + state.current))
    end
    write_late(pool, state)
  end
end
