-- Asks for a job's end. The database has noted the request before.
-- ARGV: job, kind ('cancelled' or 'expired'), life of what is left where nothing was known (ms)
-- Returns: 'closed' (it never runs again, and no outcome will come), 'running' (its outcome will come), or the
-- state in which it has ended, whose outcome stands.
pass_memory_limit()
local id, kind, life = unpack(ARGV)
life = whole(life, MAX_LIFE)
if #ARGV ~= 3 or not is_name(id) or not is_requested_end(kind) or not life or life == 0 then
  return refuse('cancel: a job, cancelled or expired, and a life in ms are needed')
end
local name = job_of(id)
local state, silent, cancel, worker, logged = read(name, 'state', 'silent', 'cancel', 'worker', 'logged')
if silent == '1' and state then
  return 'closed'
end
if not is_state(state) then
  -- A late placement must find that it comes too late.
  let_go(id, worker)
  leave_tombstone(id, kind, life, true)
  return 'closed'
end
if state == RUNNING then
  if not is_requested_end(cancel) then
    redis.call('HSET', name, 'cancel', kind)
    -- A hint: who does not hear it finds the request with the next write or beat.
    redis.pcall('PUBLISH', key('ends:' .. worker_of(worker or '')), id)
  end
  return 'running'
end
if state == WAITING then
  local now = now_ms()
  redis.call('HSET', name, 'silent', '1')
  if (whole(logged, MAX_INTEGER) or 0) > 0 then
    -- It needs no outcome, and the ends of its attempts do.
    write_outcome(id, kind, now)
  end
  close(id, kind, now)
  return 'closed'
end
if state == 'failed' or state == 'withdrawn' then
  redis.call('HSET', name, 'closed', '1')
end
return state
