-- The classes in order, and all pools in each; and what is kept of this draw.

local goes_on = false
do
  -- Takes jobs of a class: one of each pool in turn, from the pool at `at` on.
  local function draw_of_all(class, at)
    local open = {}
    for i = at, #open_pools - 1 do
      open[#open + 1] = i
    end
    while #open > 0 do
      local still_open = {}
      for _, i in ipairs(open) do
        if not wants_more() then
          return
        end
        local pool = open_pools[(first + i) % #open_pools + 1]
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

  local first_class, first_at = nil, 0
  if cursor then
    redis.call('DEL', key('cursor:' .. worker))
    local class, at, rank, its_first = string.match(cursor, '^(%a+) (%d+) (%d+) (%d+)$')
    at, rank, its_first = whole(at, #open_pools - 1), whole(rank, MAX_TOKENS), whole(its_first, MAX_INTEGER - #open_pools)
    if is_priority(class) and at and rank and its_first then
      first_class, first_at, first, goes_on = class, at, its_first, true
      ranks[tenants_of(open_pools[(first + at) % #open_pools + 1], class)] = rank
    end
  end
  -- Where standard jobs are late, and owed one, that comes first. A draw that goes on begins where the last one stopped.
  if not cursor and wants_more() and #open_pools > 0 then
    local late = apply('HMGET', key('core:late'), unpack(open_pools))
    for i = 0, #open_pools - 1 do
      local at = (first + i) % #open_pools + 1
      local state = read_late(late[at], now)
      if state and state.debt == 0 and wants_more() then
        draw_of_pool(open_pools[at], 'standard')
      end
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
        if #answer == 2 and not busy and #cut == 0 and wants_more() and not is_trying(pool, now)
            and may_take_turn(pool) then
          draw_of_pool(pool, alone_class(class))
        end
      end
    end
  end
end
if stopped_at and wants_more() then
  -- How long a worker may take to draw again after a draw that stopped half-way (ms).
  local CURSOR_LIFE = 60000
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
if trial.pool and apart[trial.pool] then
  take_turn(trial.pool, trial.proved_at)
end
if drawn.has_others then
  if run then
    redis.call('DEL', run_of(worker))
  end
  -- Who is passed over for being apart is owed nothing for that.
  local function raise_counters(pool, tenants)
    for _, class in ipairs(PRIORITIES) do
      local floor = apply('HGET', served_of(pool, class), 'floor')
      for _, record in ipairs(counter_of(floor) and tenants or {}) do
        apply('ZADD', tenants_of(pool, class), 'XX', 'GT', floor, record.tenant)
      end
    end
  end

  for pool, state in pairs(apart) do
    if #state.apart > 0 then
      note_apart(pool, 'others', integer(now))
      raise_counters(pool, state.apart)
    end
  end
end
if next(drawn.totals) then
  note_classes(worker_id, drawn.totals, now)
end
if #answer > 2 then
  redis.call('SET', process_of(worker), process, 'PX', MAX_LEASE)
end
if #answer - 2 >= count or is_full then
  leave_idle(worker)
else
  -- An idle worker draws every few seconds; one that does not for so long is not woken any more (ms).
  local IDLE_LIFE = 60000
  local pools = table.concat(ARGV, ' ', FIRST_POOL) .. (limits and limits.as_note() or '')
  if apply('GET', key('idle:' .. worker)) ~= pools then
    leave_idle(worker)
    for i = FIRST_POOL, #ARGV do
      apply('SADD', idle_of(ARGV[i]), worker)
    end
  end
  redis.call('SET', key('idle:' .. worker), pools, 'PX', IDLE_LIFE)
  -- What it was woken for may be what it passed over: another is, who may have that.
  for tenant in pairs(limits and limits.passed[limits.woken_for or ''] or {}) do
    wake_one(limits.woken_for, now, worker, tenant)
  end
end
if limits then
  answer[#answer + 1] = limits.count
end
return answer
