-- A job that the database does not know: noted when that is first seen; ended, whatever it does, if it still is so much
-- later. Nobody would ever read what becomes of it.
-- ARGV: job, grace (ms): for so long it may go on, life (ms) of what is left then
-- Returns: 'noted', 'ended', or 'unknown' where Redis does not know it either; a stream without its job gets a life.
pass_memory_limit()
local id, grace, life = ARGV[1], whole(ARGV[2], MAX_LIFE), whole(ARGV[3], MAX_LIFE)
if #ARGV ~= 3 or not is_name(id) or not grace or not life or life == 0 then
  return refuse('disown: a job, a grace and a life in ms are needed')
end
local name, now = job_of(id), now_ms()
local state, worker, unknown_since = read(name, 'state', 'worker', 'unknown_since')
if state == false then
  redis.call('PEXPIRE', stream_of(id), integer(life))
  return 'unknown'
end
-- What is of another type cannot be noted on.
if state and not whole(unknown_since, MAX_INTEGER) then
  redis.call('HSET', name, 'unknown_since', integer(now))
end
if state and now - (whole(unknown_since, MAX_INTEGER) or now) < grace then
  return 'noted'
end
if state then
  redis.call('HDEL', name, 'body')
  if state == RUNNING then
    let_go(id, worker)
    redis.call('HSET', name, 'fence', '')
  end
  if state == RUNNING or state == WAITING then
    close(id, 'cancelled', now)
  end
  redis.call('HSET', name, 'closed', '1', 'disowned', '1')
end
redis.call('PEXPIRE', name, integer(life))
redis.call('PEXPIRE', stream_of(id), integer(life))
return 'ended'
