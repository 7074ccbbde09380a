-- Takes attempts from workers whose keys were revoked: their jobs wait again, at their offsets. No death counts.
-- ARGV: job...
-- Answers: {worker, what became of its job, worker, ...}
local now = now_ms()
local answer = {}
for _, id in ipairs(ARGV) do
  local job = redis.call('HMGET', job_of(id), 'state', 'worker')
  -- Asked again here: the job may have become another worker's since the caller looked.
  if job[1] == RUNNING and is_revoked(job[2]) then
    let_go(id, job[2])
    leave_idle(job[2])
    answer[#answer + 1] = job[2]
    answer[#answer + 1] = return_to_pool(id, now, job[2])
  end
end
return answer
