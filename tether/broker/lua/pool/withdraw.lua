-- Takes a dispatch out of Redis, for the database to place anew.
-- ARGV: job, dispatch (this one or an older one is withdrawn), also running ('1') or only while it waits ('0');
-- 'again' writes the outcome of a dispatch that has ended once more, and withdraws nothing
-- Returns: 'withdrawn', 'running' (left alone), 'unknown', or the state that it has ended in.
pass_memory_limit()
local id, dispatch, wish = unpack(ARGV)
dispatch = whole(dispatch, MAX_TOKENS)
if #ARGV ~= 3 or not is_name(id) or not dispatch or not (wish == '0' or wish == '1' or wish == 'again') then
  return refuse('withdraw: a job, a dispatch, and 0, 1 or again are needed')
end
local name = job_of(id)
local state, job_dispatch, worker = read(name, 'state', 'dispatch', 'worker')
job_dispatch = whole(job_dispatch, MAX_TOKENS)
if not is_state(state) or not job_dispatch or job_dispatch > dispatch then
  return 'unknown'
end
if wish == 'again' then
  if state ~= RUNNING and state ~= WAITING and job_dispatch == dispatch then
    write_outcome(id, state, now_ms())
  end
  return state
end
if state == RUNNING then
  if wish ~= '1' then
    return RUNNING
  end
  let_go(id, worker)
  log_attempt(id, now_ms(), 'withdrawn', 'database')
elseif state ~= WAITING then
  return state
end
redis.call('HSET', name, 'state', 'withdrawn', 'fence', '')
write_outcome(id, 'withdrawn', now_ms())
return 'withdrawn'
