-- One tick of the lease loop: what ran out goes back to its pool; woken workers that did not come are passed over.
-- ARGV: lease (ms), age from which batch jobs count as standard (ms), most leases to take in one call
-- Answers: {leases extended, leases taken, worker, what became of its job, worker, ...}
local lease, age, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
-- Ticks that lie further apart than this mean that Redis or everybody was away (ms).
local LONGEST_PAUSE = 1000
-- For so long it is known what was taken from a worker, in case that it comes back (ms).
local GIVEN_UP_LIFE = 600000
-- Batch jobs that grow old are moved so many a pool and tick.
local MOST_AGED = 16

local now = now_ms()
local tick = key('core:lease_tick')
local former = redis.call('HMGET', tick, 'at', 'run_id')
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
if former[2] and former[2] ~= run_id then
  redis.call('INCR', key('core:restarts'))
end
redis.call('HSET', tick, 'at', integer(now), 'run_id', run_id)
if former[2] ~= run_id or now - tonumber(former[1]) > LONGEST_PAUSE then
  local all = redis.call('ZRANGE', leases, 0, -1, 'WITHSCORES')
  for i = 1, #all, 2 do
    redis.call('ZADD', leases, math.max(tonumber(all[i + 1]), now + lease), all[i])
  end
  return {#all / 2, 0}
end

local answer = {0, 0}
for _, member in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, most)) do
  redis.call('ZREM', leases, member)
  answer[2] = answer[2] + 1
  local what, id = string.sub(member, 1, 1), string.sub(member, 3)
  if what == 'w' then
    local pool = redis.call('HGET', key('core:woken'), id)
    redis.call('HDEL', key('core:woken'), id)
    leave_idle(id)
    if pool then
      wake_one(pool, now, id)
    end
  else
    local name = job_of(id)
    local job = redis.call('HMGET', name, 'state', 'worker', 'draw', 'deaths', 'alone')
    if job[1] == RUNNING then
      redis.call('HDEL', drawn_of(job[2]), id)
      leave_idle(job[2])
      local is_poison = job[5] == '1'
      local deaths = math.min(tonumber(job[4]) + 1, is_poison and DEATHS_BEFORE_ALONE + 1 or DEATHS_BEFORE_ALONE)
      redis.call('HSET', name, 'deaths', integer(deaths), 'lost', job[3])
      redis.call('HSET', key('given_up:' .. job[2]), id, job[3])
      redis.call('PEXPIRE', key('given_up:' .. job[2]), GIVEN_UP_LIFE)
      local became
      if is_poison then
        redis.call('HSET', name, 'state', 'poisoned', 'fence', '')
        write_outcome(id, 'poisoned', now)
        became = 'poisoned'
      else
        became = return_to_pool(id, now, job[2])
      end
      answer[#answer + 1] = job[2]
      answer[#answer + 1] = became
    end
  end
end

for _, pool in ipairs(redis.call('SMEMBERS', key('core:pools'))) do
  local batch = tenants_of(pool, 'batch')
  for _, tenant in ipairs(redis.call('ZRANGE', batch, 0, MOST_AGED - 1)) do
    local list = batch .. ':' .. tenant
    local entry = redis.call('LINDEX', list, 0)
    local id, ticket = string.match(entry or '', '^(.+) (%d+)$')
    local job = id and redis.call('HMGET', job_of(id), 'placed_at', 'state', 'ticket') or {}
    if entry and (not job[1] or tonumber(job[1]) + age <= now) then
      redis.call('LPOP', list)
      if redis.call('EXISTS', list) == 0 then
        redis.call('ZREM', batch, tenant)
      end
      if job[2] == WAITING and job[3] == ticket then
        redis.call('HSET', job_of(id), 'priority', 'standard')
        let_wait(id, ticket, pool, 'standard', tenant, false)
      end
    end
  end
  if redis.call('EXISTS', tenants_of(pool, 'interactive'), tenants_of(pool, 'standard'), batch) == 0 then
    redis.call('SREM', key('core:pools'), pool)
  end
end
return answer
