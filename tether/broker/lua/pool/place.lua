-- Lets a dispatch wait in its pool, unless Redis knows it, or a newer one, or that the job has ended.
-- ARGV: job, dispatch, pool, tenant, priority, weight, deadline, cost, body, lossy ('1': Redis had it before)
-- Answers: 'placed'; 'known' (this dispatch, whatever became of it, or a newer one); 'closed' (never to run).
local id, dispatch, pool, tenant, priority = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local name = job_of(id)
local job = redis.call('HMGET', name, 'dispatch', 'closed', 'state', 'worker', 'ticket', 'run', 'offset', 'n')
if job[2] == '1' then
  return 'closed'
end
if job[1] and tonumber(job[1]) >= tonumber(dispatch) then
  return 'known'
end
local now = now_ms()
local ticket, lossy = '1', '0'
if job[1] then
  if job[3] == RUNNING then
    let_go(id, job[4])
  end
  ticket = integer(tonumber(job[5]) + 1)
  local n = tonumber(job[8]) + 1
  redis.call('HSET', name, 'n', integer(n))
  say(id, tonumber(job[6]), tonumber(job[7]), n, 'rerouted', '{}')
  redis.call('PERSIST', name)
  redis.call('PERSIST', stream_of(id))
else
  -- A second dispatch of what was never seen: tokens of the first are lost.
  lossy = tonumber(dispatch) > 1 and '1' or ARGV[10]
  redis.call('HSET', name, 'run', '0', 'offset', '0', 'n', '0', 'deaths', '0', 'lost', '', 'boot',
    redis.call('GET', key('core:restarts')) or '0')
end
redis.call('HSET', name, 'v', VERSION, 'state', WAITING, 'dispatch', dispatch, 'attempt', '0', 'draw', '', 'worker', '',
  'fence', '', 'pool', pool, 'tenant', tenant, 'priority', priority, 'weight', ARGV[6], 'deadline', ARGV[7],
  'cost', ARGV[8], 'body', ARGV[9], 'lossy', lossy, 'cancel', '', 'closed', '0', 'said', '0', 'ticket', ticket,
  'placed_at', integer(now), 'alone', '0', 'avoid', '', 'avoid_until', '0', 'reserved', '')
let_wait(id, ticket, pool, priority, tenant, false)
wake_one(pool, now, '')
return 'placed'
