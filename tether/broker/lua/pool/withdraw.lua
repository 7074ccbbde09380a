-- Takes a dispatch out of Redis, for the database to place anew.
-- ARGV: job, dispatch (this one or an older one is withdrawn), also running ('1') or only while it waits ('0');
-- 'again' writes the outcome of a dispatch that has ended once more, and withdraws nothing
-- Answers: 'withdrawn', 'running' (left alone), 'unknown', or the state that it has ended in.
local id = ARGV[1]
local name = job_of(id)
local job = redis.call('HMGET', name, 'state', 'dispatch', 'worker')
if not job[1] or tonumber(job[2]) > tonumber(ARGV[2]) then
  return 'unknown'
end
if ARGV[3] == 'again' then
  if job[1] ~= RUNNING and job[1] ~= WAITING and job[2] == ARGV[2] then
    write_outcome(id, job[1], now_ms())
  end
  return job[1]
end
if job[1] == RUNNING then
  if ARGV[3] ~= '1' then
    return RUNNING
  end
  let_go(id, job[3])
elseif job[1] ~= WAITING then
  return job[1]
end
redis.call('HSET', name, 'state', 'withdrawn', 'fence', '')
write_outcome(id, 'withdrawn', now_ms())
return 'withdrawn'
