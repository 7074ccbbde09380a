-- Writes the final state that the database has committed, and lets Redis forget the job after a while.
-- ARGV: job, state, life (ms), data of the last event where it has not succeeded and none was written yet
-- Returns: 'sealed', or 'unknown' where Redis did not have it (late placements are refused from then on).
pass_memory_limit()
local id, state, life, data = unpack(ARGV)
life = whole(life, MAX_LIFE)
if #ARGV ~= 4 or not is_name(id) or not is_final(state) or not life or life == 0
    or not is_json(data, MAX_EVENT_BYTES) then
  return refuse('seal: a job, a final state, a life in ms and the data of an event are needed')
end
local name = job_of(id)
local job_state, worker, logged, said = read(name, 'state', 'worker', 'logged', 'said')
if not job_state then
  leave_tombstone(id, state, life, false)
  return 'unknown'
end
-- First, since it frees memory: what follows is then allowed also where Redis has none left.
redis.call('HDEL', name, 'body')
local is_of_redis = job_state == RUNNING or job_state == WAITING
if job_state == RUNNING then
  let_go(id, worker)
  log_attempt(id, now_ms(), 'sealed', 'end')
  redis.call('HSET', name, 'fence', '')
end
if is_of_redis and (job_state == RUNNING or (whole(logged, MAX_INTEGER) or 0) > 0) then
  -- The database ended it by itself, and does not know the ends of its attempts.
  write_outcome(id, 'withdrawn', now_ms())
end
redis.call('HSET', name, 'state', state, 'closed', '1')
if state ~= 'succeeded' then
  say_the_end(id, 'failed', data)
elseif said ~= '1' then
  -- Redis lost its end, and maybe tokens before that: readers find both in the database.
  redis.call('DEL', stream_of(id))
end
redis.call('PEXPIRE', name, life)
redis.call('PEXPIRE', stream_of(id), life)
return 'sealed'
