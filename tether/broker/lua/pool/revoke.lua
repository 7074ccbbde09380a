-- Takes attempts from workers whose keys were revoked: their jobs wait again, at their offsets. No death counts.
-- ARGV: job...
-- Returns: {worker, what became of its job, worker, ...}
pass_memory_limit()
local now = now_ms()
local answer = {}
for _, id in ipairs(ARGV) do
  local name = job_of(id)
  local state, worker = read(name, 'state', 'worker')
  -- Asked again here: the job may have become another worker's since the caller looked.
  if state == RUNNING and is_name(worker) and is_revoked(worker) then
    let_go(id, worker)
    leave_idle(worker)
    answer[#answer + 1] = worker
    answer[#answer + 1] = return_to_pool(id, now, worker, 'revoked')
  end
end
return answer
