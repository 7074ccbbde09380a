-- Writes the final state that the database has committed, and lets Redis forget the job after a while.
-- ARGV: job, state, life (ms), data of the last event where none was written yet
-- Answers: 'sealed', or 'unknown' where Redis did not have it (late placements are refused from then on).
local id, state, life = ARGV[1], ARGV[2], ARGV[3]
local name = job_of(id)
local job = redis.call('HMGET', name, 'state', 'worker')
if not job[1] then
  redis.call('HSET', name, 'v', VERSION, 'state', state, 'closed', '1', 'run', '0', 'offset', '0', 'n', '0', 'dispatch', '0')
  redis.call('PEXPIRE', name, life)
  return 'unknown'
end
-- First, since it frees memory: what follows is then allowed also where Redis has none left.
redis.call('HDEL', name, 'body')
if job[1] == RUNNING then
  let_go(id, job[2])
  redis.call('HSET', name, 'fence', '')
end
redis.call('HSET', name, 'state', state, 'closed', '1')
say_the_end(id, state == 'succeeded' and 'finished' or 'failed', ARGV[4])
redis.call('PEXPIRE', name, life)
redis.call('PEXPIRE', stream_of(id), life)
return 'sealed'
