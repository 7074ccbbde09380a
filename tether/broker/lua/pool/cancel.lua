-- Asks for a job's end. The database has noted the request before.
-- ARGV: job, kind ('cancelled' or 'expired'), life of what is left where nothing was known (ms), which jobs: 'any';
-- 'unbegun': only one that no worker has begun; 'waiting': and that can be read here
-- Returns: 'closed' (it never runs again, and no outcome will come), 'running' (its outcome will come), or the
-- state in which it has ended, whose outcome stands. Of those not meant 'begun' (it has, or may have) and 'unknown':
-- nothing was written.
pass_memory_limit()
local id, kind, life, which = unpack(ARGV)
life = whole(life, MAX_LIFE)
if #ARGV ~= 4 or not is_name(id) or not is_requested_end(kind) or not life or life == 0
    or not (which == 'any' or which == 'unbegun' or which == 'waiting') then
  return refuse('cancel: a job, cancelled or expired, a life in ms, and any, unbegun or waiting are needed')
end
local name = job_of(id)
local state, silent, cancel, worker, logged, expires_at, attempt, boot =
  read(name, 'state', 'silent', 'cancel', 'worker', 'logged', 'expires_at', 'attempt', 'boot')
if silent == '1' and state then
  return 'closed'
end
if not is_state(state) and which == 'waiting' then
  return 'unknown'
elseif which ~= 'any' and is_state(state) and not is_final(state) and may_have_begun(expires_at, attempt, boot) then
  return 'begun'
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
