-- Removes from one key beside the jobs what has no owner any more, and what says nothing.
-- ARGV: 'list', pool, priority, tenant, start, count: entries of jobs that do not wait there any more
--       'tenants', pool, priority, tenant...: tenants without a list
--       'idle', pool, worker...: workers that have not drawn for long
--       'drawn', worker, job...: jobs that this worker does not run
--       'served', pool, priority, life (ms), tenant...: counters that are not above the floor, which is what a tenant
--       without one gets. The hash gets this life from its last change on, that is of the floor, which each draw raises
-- Returns: {removed, looked at}
pass_memory_limit()
local MAX_LOOKED_AT_ONCE = 1000
local kind = ARGV[1]

local function leave_empty_list(tenants, tenant)
  if redis.call('EXISTS', tenants .. ':' .. tenant) == 0 then
    return redis.call('ZREM', tenants, tenant)
  end
  return 0
end

-- Lanes that an older version left do not stand by their age yet.
local function note_age(pool, class, tenant)
  if class == 'batch' or class == 'alone.batch' or class == 'standard' then
    local head = redis.pcall('LINDEX', tenants_of(pool, class) .. ':' .. tenant, 0)
    local id = type(head) == 'string' and string.match(head, '^(.+) %d+$')
    local placed_at = id and whole(read(job_of(id), 'placed_at'), MAX_INTEGER)
    if placed_at and class == 'standard' then
      apply('ZADD', ages_of(pool), 'NX', integer(placed_at), tenant)
    elseif placed_at then
      apply('ZADD', key('core:aging'), 'NX', integer(placed_at), pool .. ' ' .. class .. ' ' .. tenant)
    end
  end
end

local function tidy_list(pool, priority, tenant, start, count)
  local tenants = tenants_of(pool, priority)
  local list = tenants .. ':' .. tenant
  local entries = redis.call('LRANGE', list, start, start + count - 1)
  local removed = 0
  for i, entry in ipairs(entries) do
    local id, ticket = string.match(entry, '^(.+) (%d+)$')
    local name = job_of(id or '')
    local state, job_ticket = read(name, 'state', 'ticket')
    if state ~= WAITING or job_ticket ~= ticket then
      -- Emptied first, removed together: to remove one takes as long as to look through the list.
      redis.call('LSET', list, start + i - 1, '')
      removed = removed + 1
    end
  end
  if removed > 0 then
    redis.call('LREM', list, 0, '')
    leave_empty_list(tenants, tenant)
  end
  return {removed, #entries}
end

local function tidy_served(pool, priority, life)
  local served = served_of(pool, priority)
  local floor_text, swept = unpack(redis.call('HMGET', served, 'floor', 'swept'))
  local floor = counter_of(floor_text) or 0
  local removed = 0
  for i = 5, #ARGV do
    local counter = counter_of(redis.call('HGET', served, 't:' .. ARGV[i]))
    if not counter or counter <= floor then
      removed = removed + redis.call('HDEL', served, 't:' .. ARGV[i])
    end
  end
  if (floor_text and swept ~= floor_text) or redis.call('PTTL', served) == -1 then
    if floor_text then
      redis.call('HSET', served, 'swept', floor_text)
    end
    redis.call('PEXPIRE', served, life)
  end
  return {removed, #ARGV - 4}
end

if #ARGV > MAX_LOOKED_AT_ONCE or not is_name(ARGV[2]) then
  return refuse('tidy: names, no more than ' .. MAX_LOOKED_AT_ONCE .. ', are needed')
end
if kind == 'list' and #ARGV == 6 then
  local start, count = whole(ARGV[5], MAX_INTEGER), whole(ARGV[6], MAX_LOOKED_AT_ONCE)
  if start and count and count > 0 then
    return tidy_list(ARGV[2], ARGV[3], ARGV[4], start, count)
  end
elseif kind == 'tenants' and #ARGV >= 3 then
  local removed = 0
  for i = 4, #ARGV do
    removed = removed + leave_empty_list(tenants_of(ARGV[2], ARGV[3]), ARGV[i])
    note_age(ARGV[2], ARGV[3], ARGV[i])
  end
  return {removed, #ARGV - 3}
elseif kind == 'idle' and #ARGV >= 2 then
  local removed = 0
  for i = 3, #ARGV do
    if redis.call('EXISTS', key('idle:' .. ARGV[i])) == 0 then
      removed = removed + redis.call('SREM', idle_of(ARGV[2]), ARGV[i])
    end
  end
  return {removed, #ARGV - 2}
elseif kind == 'drawn' and #ARGV >= 2 then
  local removed = 0
  for i = 3, #ARGV do
    local name = job_of(ARGV[i])
    local state, worker = read(name, 'state', 'worker')
    if state ~= RUNNING or worker ~= ARGV[2] then
      removed = removed + redis.call('HDEL', drawn_of(ARGV[2]), ARGV[i])
    end
  end
  return {removed, #ARGV - 2}
elseif kind == 'served' and #ARGV >= 4 then
  local life = whole(ARGV[4], MAX_LIFE)
  if life and life > 0 then
    return tidy_served(ARGV[2], ARGV[3], integer(life))
  end
end
return refuse('tidy: a kind, names and whole numbers are needed')
