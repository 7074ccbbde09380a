-- One tick of the lease loop: what ran out goes back to its pool; woken workers that did not come are passed over.
-- ARGV: lease (ms), age from which batch jobs count as standard (ms), most leases to take in one call, age from which
-- standard jobs are late (ms), their share then (per mille; 0: none)
-- Returns: {leases extended, leases taken, worker, what became of its job, worker, ...}
pass_memory_limit()
local lease, age, max_leases = whole(ARGV[1], MAX_LEASE), whole(ARGV[2], MAX_LIFE), whole(ARGV[3], MAX_SET_ASIDE)
local late_age, late_share = whole(ARGV[4], MAX_LIFE), whole(ARGV[5], 999)
if #ARGV ~= 5 or not (lease and lease > 0 and age and max_leases and late_age and late_share) then
  return refuse('expire: a lease and an age in ms, a number of leases, an age in ms and a share per mille are needed')
end
-- Ticks that lie further apart than this mean that Redis or everybody was away (ms).
local LONGEST_PAUSE = 1000
-- For so long it is known what was taken from a worker, in case that somebody tells how it ended (ms).
local GIVEN_UP_LIFE = 600000
-- Lanes whose batch jobs grow old are looked at so many a tick, and so many entries of each; one job of each moves.
local MAX_AGED = 128
local MAX_HEADS = 8
-- For so long it is known what a worker was last seen to do (ms): as long as its announcements are.
local SEEN_LIFE = 3600000
-- So many workers a tick are looked at whether that is over.
local MAX_FORGOTTEN = 4

-- An announcement is believed for so long at most by a clock that was set back (ms).
local MAX_PRESENCE_LIFE = 60000

local now = now_ms()
local tick = key('core:lease_tick')

local function not_after(times, most)
  for _, member in ipairs(apply('ZRANGEBYSCORE', times, '(' .. integer(most), '+inf')) do
    redis.call('ZADD', times, integer(most), member)
  end
end

local function not_after_now(time)
  return tonumber(time) > now and integer(now) or time
end

-- Redis's clock was set back, or another Redis with one that is behind took over. No lease lasts longer for that, and what
-- was seen is no longer in the future: nobody who is gone would be taken for alive until the clock has caught up.
local function set_back()
  not_after(leases, now + lease)
  not_after(seen_doing(), now)
  not_after(key('fleet:expiry'), now + MAX_PRESENCE_LIFE)
  -- "<ms> <pool> <pool>...", and the same behind tabs.
  local asked = apply('HGETALL', key('core:asked'))
  for i = 1, #asked, 2 do
    local text = string.gsub('\t' .. asked[i + 1], '(\t)(%d+)', function(tab, time)
      return tab .. not_after_now(time)
    end)
    redis.call('HSET', key('core:asked'), asked[i], string.sub(text, 2))
  end
  -- "<ms> <ms> <ms>".
  local since = apply('HGETALL', key('fleet:since'))
  for i = 1, #since, 2 do
    redis.call('HSET', key('fleet:since'), since[i], (string.gsub(since[i + 1], '%d+', not_after_now)))
  end
  for _, field in ipairs({'paused', 'resumed'}) do
    local time = whole(apply('HGET', tick, field), MAX_INTEGER)
    if time and time > now then
      redis.call('HSET', tick, field, integer(now))
    end
  end
end

local former_at, former_run_id = unpack(apply('HMGET', tick, 'at', 'run_id'))
former_at = whole(former_at, MAX_INTEGER)
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
if former_run_id and former_run_id ~= run_id then
  local restarts = whole(apply('GET', key('core:restarts')), MAX_INTEGER - 1) or 0
  redis.call('SET', key('core:restarts'), integer(restarts + 1))
end
redis.call('HSET', tick, 'at', integer(now), 'run_id', run_id)
if former_at and former_at > now then
  set_back()
  former_at = now
end
apply('ZREMRANGEBYSCORE', seen_doing(), '-inf', '(' .. integer(now - SEEN_LIFE))
local asked = apply('HRANDFIELD', key('core:asked'), MAX_FORGOTTEN, 'WITHVALUES')
for i = 1, #asked, 2 do
  if (whole(string.match(asked[i + 1], '^%d+'), MAX_INTEGER) or 0) < now - SEEN_LIFE then
    redis.call('HDEL', key('core:asked'), asked[i])
  end
end
if former_run_id ~= run_id or not former_at or now - former_at > LONGEST_PAUSE then
  local all = apply('ZRANGE', leases, 0, -1, 'WITHSCORES')
  for i = 1, #all, 2 do
    redis.call('ZADD', leases, math.max(tonumber(all[i + 1]), now + lease), all[i])
  end
  -- Nor could anybody be seen to do anything meanwhile.
  redis.call('HSET', tick, 'paused', integer(former_at or now), 'resumed', integer(now))
  return {#all / 2, 0}
end

-- Whether the worker's process is not the one of a boot id any more: what that misses says nothing of the worker.
local function was_started_again(boot_id)
  local order = apply('HGET', key('fleet:order'), worker_of(boot_id))
  local newest = whole(string.match(order or '', '^%d+'), MAX_INTEGER)
  local its_own = whole(string.match(boot_id, '%.(%d+)$'), MAX_INTEGER)
  return newest and its_own and newest > its_own
end

local answer = {0, 0}
for _, member in ipairs(apply('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, max_leases)) do
  redis.call('ZREM', leases, member)
  answer[2] = answer[2] + 1
  local what, id = string.sub(member, 1, 1), string.sub(member, 3)
  if what == 'w' then
    local pool = apply('HGET', key('core:woken'), id)
    apply('HDEL', key('core:woken'), id)
    leave_idle(id)
    if pool then
      if not was_started_again(id) then
        apply('ZADD', seen_doing(), now, 'm ' .. worker_of(id) .. ' ' .. pool)
      end
      wake_one(pool, now, id)
    end
  elseif what == 'j' then
    local name = job_of(id)
    local state, worker, draw, drawn_at = read(name, 'state', 'worker', 'draw', 'drawn_at')
    if not is_state(state) then
      set_aside(id, 'expire')
    elseif state == RUNNING then
      worker, draw = worker or '', draw or ''
      apply('HDEL', drawn_of(worker), id)
      leave_idle(worker)
      redis.call('HSET', name, 'lost', draw)
      -- It was heard of when the lease was last renewed.
      local ran = math.max(0, now - lease - (whole(drawn_at, MAX_INTEGER) or now))
      apply('HSET', given_up_by(worker), id, draw .. ' ' .. integer(ran))
      redis.call('PEXPIRE', given_up_by(worker), GIVEN_UP_LIFE)
      answer[#answer + 1] = worker
      answer[#answer + 1] = return_to_pool(id, now, worker, 'lease_lost')
    end
  end
end

local PROMOTED = {batch = 'standard', ['alone.batch'] = alone_class('standard')}

-- Moves the oldest job of a lane where it is old enough. Returns when the next one of the lane was placed; nil where
-- the lane is empty.
local function promote(pool, class, tenant)
  local tenants = tenants_of(pool, class)
  local list = tenants .. ':' .. tenant
  local has_moved = false
  for _ = 1, MAX_HEADS do
    local entry = apply('LINDEX', list, 0)
    if not entry then
      apply('ZREM', tenants, tenant)
      return nil
    end
    local id, ticket = string.match(entry, '^(.+) (%d+)$')
    local name = job_of(id or '')
    local placed_at, state, job_ticket = read(name, 'placed_at', 'state', 'ticket')
    placed_at = whole(placed_at, MAX_INTEGER)
    local is_current = state == WAITING and job_ticket == ticket
    if is_current and placed_at and (has_moved or placed_at + age > now) then
      return placed_at
    end
    redis.call('LPOP', list)
    if is_current then
      redis.call('HSET', name, 'priority', 'standard', 'aged_at', integer(now))
      let_wait(id, ticket, pool, PROMOTED[class], tenant, placed_at or now, false)
      has_moved = true
    elseif not is_state(state) then
      set_aside(id or entry, 'expire')
    end
  end
  return 0
end

-- A lane that has had its turn waits behind the others that are due, by the time of this one.
local aging = key('core:aging')
for _, member in ipairs(apply('ZRANGEBYSCORE', aging, '-inf', integer(now - age), 'LIMIT', 0, MAX_AGED)) do
  local pool, class, tenant = string.match(member, '^(%S+) (%S+) (.+)$')
  local placed_at = PROMOTED[class or ''] and promote(pool, class, tenant)
  if placed_at then
    redis.call('ZADD', aging, integer(math.max(placed_at, now - age)), member)
  else
    redis.call('ZREM', aging, member)
  end
end

-- Whether a standard job of the pool has waited for so long. Only what stands at the head of a lane is looked at: lanes are
-- in the order of age, but for few.
local function is_late(pool)
  for _ = 1, MAX_HEADS do
    local tenant, oldest = unpack(apply('ZRANGE', ages_of(pool), 0, 0, 'WITHSCORES'))
    oldest = tonumber(oldest)
    if not tenant or oldest and oldest + late_age > now then
      return false
    end
    local list = tenants_of(pool, 'standard') .. ':' .. tenant
    local entry = apply('LINDEX', list, 0)
    local id, ticket = string.match(entry or '', '^(.+) (%d+)$')
    local placed_at, state, job_ticket = read(job_of(id or ''), 'placed_at', 'state', 'ticket')
    placed_at = whole(placed_at, MAX_INTEGER)
    if not entry then
      redis.call('ZREM', ages_of(pool), tenant)
    elseif state == WAITING and job_ticket == ticket and placed_at then
      if placed_at + late_age <= now then
        return true
      end
      redis.call('ZADD', ages_of(pool), integer(placed_at), tenant)
    else
      redis.call('LPOP', list)
      if not is_state(state) then
        set_aside(id or entry, 'expire')
      end
    end
  end
  return false
end

local late = apply('HGETALL', key('core:late'))
for i = 1, #late, 2 do
  late[late[i]] = read_late(late[i + 1], now)
  if not late[late[i]] then
    redis.call('HDEL', key('core:late'), late[i])
  end
end

for _, pool in ipairs(apply('SMEMBERS', key('core:pools'))) do
  local lanes, alone_lanes = {}, {}
  for i, priority in ipairs({'interactive', 'standard', 'batch'}) do
    lanes[i], alone_lanes[i] = tenants_of(pool, priority), tenants_of(pool, alone_class(priority))
  end
  if redis.call('EXISTS', lanes[2]) == 0 then
    redis.call('DEL', ages_of(pool))
  elseif late_share > 0 and is_late(pool) then
    local state = late[pool] or {debt = 0, began = now, former = 0, current = 0}
    state.age, state.share = late_age, late_share
    write_late(pool, state, now)
  end
  if redis.call('EXISTS', unpack(alone_lanes)) == 0 then
    apply(redis.call('EXISTS', apart_of(pool)) == 1 and 'SADD' or 'SREM', key('core:alone'), pool)
    if redis.call('EXISTS', unpack(lanes)) == 0 then
      redis.call('SREM', key('core:pools'), pool)
    end
  else
    -- Where that is lost nobody draws them.
    apply('SADD', key('core:alone'), pool)
  end
end
return answer
