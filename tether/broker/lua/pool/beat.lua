-- Renews the leases of attempts that go on, and tells what shall end.
-- ARGV: epoch, lease (ms), then for each: job, dispatch, attempt, draw, renew ('1': it stepped, or it loads)
-- Answers: {'epoch'} or {'ok', code...}. Codes: 'ok', 'cancelled', 'expired', 'fenced', 'unknown'.
if is_stale(ARGV[1]) then
  return {'epoch'}
end
local now = now_ms()
local answer = {'ok'}
for i = 3, #ARGV, 5 do
  local id, draw = ARGV[i], ARGV[i + 3]
  local job = redis.call('HMGET', job_of(id), 'fence', 'state', 'cancel', 'deadline')
  local code = 'ok'
  if not job[1] then
    code = 'unknown'
  elseif job[1] ~= fence(ARGV[i + 1], ARGV[i + 2], draw) then
    exonerate(id, draw)
    code = 'fenced'
  elseif job[2] == RUNNING then
    if ARGV[i + 4] == '1' then
      redis.call('ZADD', leases, now + tonumber(ARGV[2]), 'j ' .. id)
    end
    if job[3] ~= '' then
      code = job[3]
    elseif job[4] ~= '0' and tonumber(job[4]) <= now then
      code = 'expired'
    end
  end
  answer[#answer + 1] = code
end
return answer
