-- Asks for a job's end. The database has noted the request before.
-- ARGV: job, kind ('cancelled' or 'expired'), life of what is left where nothing was known (ms)
-- Answers: 'closed' (it never runs again, and no outcome will come), 'running' (its outcome will come), or the
-- state in which it has ended, whose outcome stands.
local id, kind = ARGV[1], ARGV[2]
local name = job_of(id)
local job = redis.call('HMGET', name, 'state', 'silent', 'cancel')
if not job[1] then
  -- A late placement must find that it comes too late.
  redis.call('HSET', name, 'v', VERSION, 'state', kind, 'closed', '1', 'silent', '1', 'run', '0', 'offset', '0', 'n', '0', 'dispatch', '0')
  redis.call('PEXPIRE', name, ARGV[3])
  return 'closed'
end
if job[2] == '1' then
  return 'closed'
end
if job[1] == RUNNING then
  if job[3] == '' then
    redis.call('HSET', name, 'cancel', kind)
  end
  return 'running'
end
if job[1] == WAITING then
  redis.call('HSET', name, 'silent', '1')
  close(id, kind, now_ms())
  return 'closed'
end
if job[1] == 'failed' or job[1] == 'withdrawn' then
  redis.call('HSET', name, 'closed', '1')
end
return job[1]
