-- Gives a job the priority that its row has: where it waits, it goes to that lane, and stands there where its age puts it;
-- where it runs, it waits there next. The place at which it waited in the old one is void.
-- ARGV: job, dispatch, priority, how many entries the lane may have before it (0: any number)
-- Returns: 'moved'; 'running' (its next attempt has it); 'known' (it had it already); 'full' (as many as may wait in
-- that lane: it stays where it is); 'unknown' (Redis does not have this dispatch); 'unreadable' (nothing was written);
-- or the state that it has ended in.
pass_memory_limit()
-- In a longer lane an old entry is left to those who draw, and to the sweep.
local MAX_LOOKED_THROUGH = 16384
-- Entries of jobs of which nothing is known say little of a place: so many are passed over for one that does.
local MAX_PASSED = 32

local id, dispatch, priority, max_waiting = unpack(ARGV)
dispatch, max_waiting = whole(dispatch, MAX_TOKENS), whole(max_waiting, MAX_INTEGER)
if #ARGV ~= 4 or not is_name(id) or not dispatch or not is_priority(priority) or not max_waiting then
  return refuse('reprioritise: a job, a dispatch, a priority and a number of entries are needed')
end
local name = job_of(id)
local state, job_dispatch, job_priority, asked, job_next, pool, tenant, ticket, placed_at, group =
  read(name, 'state', 'dispatch', 'priority', 'asked', 'next', 'pool', 'tenant', 'ticket', 'placed_at', 'group')
local is_handed_back = state == WAITING and is_priority(job_next)
if is_handed_back then
  -- A program of an older version handed it back, to the lane that it had come from.
  asked = job_priority
end
if not is_state(state) or whole(job_dispatch, MAX_TOKENS) ~= dispatch then
  return 'unknown'
elseif state ~= WAITING and state ~= RUNNING then
  return state
elseif (is_priority(asked) and asked or job_priority) == priority then
  if is_handed_back then
    redis.call('HSET', name, 'asked', priority, 'next', '')
  end
  -- A batch job that has aged stands among the standard ones, and stays there.
  return 'known'
elseif state == RUNNING then
  -- What it makes now counts for the class that it was drawn from.
  redis.call('HSET', name, 'asked', priority, 'next', priority)
  return RUNNING
end
ticket, placed_at = whole(ticket, MAX_INTEGER - 1), whole(placed_at, MAX_INTEGER)
if not (ticket and placed_at and is_priority(job_priority) and is_word(pool) and is_name(tenant)) then
  return 'unreadable'
elseif job_priority == priority then
  redis.call('HSET', name, 'asked', priority, 'next', '')
  return 'moved'
end
local must_be_alone = is_name(group)
local new_class = must_be_alone and alone_class(priority) or priority
local list = tenants_of(pool, new_class) .. ':' .. tenant
local count = apply('LLEN', list)
if max_waiting > 0 and count >= max_waiting then
  return 'full'
end

local function leave(old_class)
  local tenants = tenants_of(pool, old_class)
  local old_list = tenants .. ':' .. tenant
  if apply('LLEN', old_list) <= MAX_LOOKED_THROUGH and apply('LREM', old_list, 1, id .. ' ' .. integer(ticket)) == 1
      and redis.call('EXISTS', old_list) == 0 then
    apply('ZREM', tenants, tenant)
  end
end

-- Whether the job of an entry came to this lane before this one was placed, also where it has ended there since; nil where
-- that is not known.
local function is_older(entry)
  local other, its_ticket = string.match(entry, '^(.+) (%d+)$')
  local other_ticket, came_at, other_asked, aged_at =
    read(job_of(other or ''), 'ticket', 'placed_at', 'asked', 'aged_at')
  if is_priority(other_asked) and other_asked ~= priority then
    -- It aged into this lane: that put it at the end, however old it is.
    came_at = aged_at
  end
  came_at = whole(came_at, MAX_INTEGER)
  if other_ticket ~= its_ticket or not came_at then
    return nil
  end
  -- Ids are ordered by time.
  return came_at < placed_at or came_at == placed_at and other < id
end

-- How many entries of the lane come before it: lanes are in the order of age, but for what was handed over.
local function place_by_age()
  local low, high = 0, count
  while low < high do
    local middle = math.floor((low + high) / 2)
    local at, comes_before = middle, nil
    while comes_before == nil and at < high and at <= middle + MAX_PASSED do
      comes_before = is_older(redis.call('LINDEX', list, at))
      at = at + 1
    end
    if comes_before == nil and at < high then
      -- Nothing is known of any of these but their ids.
      comes_before = redis.call('LINDEX', list, middle) < id .. ' '
      at = comes_before and middle + 1 or at
    end
    if not comes_before then
      high = middle
    else
      low = at
    end
  end
  return low
end

leave(job_priority)
leave(alone_class(job_priority))
ticket = integer(ticket + 1)
redis.call('HSET', name, 'priority', priority, 'asked', priority, 'next', '', 'aged_at', '', 'ticket', ticket)
local rank, entry = place_by_age(), id .. ' ' .. ticket
if rank == 0 then
  redis.call('LPUSH', list, entry)
elseif rank == count then
  redis.call('RPUSH', list, entry)
else
  redis.call('LINSERT', list, 'BEFORE', redis.call('LINDEX', list, rank), entry)
end
if must_be_alone then
  note_alone(pool, now_ms())
end
note_waiting(pool, new_class, tenant, placed_at)
return 'moved'
