-- Renews the leases of attempts that go on, and tells what shall end.
-- ARGV: epoch, lease (ms), then for each: job, dispatch, attempt, draw, renew ('1': it stepped, or it loads)
-- Returns: {'epoch'} or {'ok', code...}. Codes: 'ok', 'cancelled', 'expired', 'fenced', 'unknown', 'unreadable'.
pass_memory_limit()
if is_stale(ARGV[1]) then
  return {'epoch'}
end
local lease = whole(ARGV[2], MAX_LEASE)
if not lease or lease == 0 or (#ARGV - 2) % 5 ~= 0 then
  return refuse('beat: a lease of up to a day in ms and five arguments for each attempt are needed')
end
local now = now_ms()
local until_ms = now + lease
local answer = {'ok'}
local renewing
local is_of_revoked = revocation_check()
for i = 3, #ARGV, 5 do
  local id, dispatch, attempt, draw, renew = unpack(ARGV, i, i + 4)
  local name = job_of(id)
  local job_fence, state, cancel, deadline = read(name, 'fence', 'state', 'cancel', 'deadline')
  local code = 'ok'
  if job_fence == false then
    code = 'unknown'
  elseif not job_fence then
    code = 'unreadable'
  elseif job_fence ~= fence(dispatch, attempt, draw) then
    code = 'fenced'
  elseif is_of_revoked(draw) then
    code = 'fenced'
  elseif state == RUNNING then
    code = end_asked_for(cancel, deadline, now) or 'unreadable'
    if renew == '1' and code ~= 'unreadable' then
      apply('ZADD', leases, until_ms, 'j ' .. id)
      renewing = draw
    end
  end
  if code == 'unreadable' then
    give_up(id, now, 'beat')
  end
  answer[#answer + 1] = code
end
if renewing then
  note_renewal(renewing, now)
  -- A worker without a free slot does not draw, and keeps the lead by this.
  if string.match(apply('GET', lead_of(renewing)) or '', '^%d+') == string.match(renewing, '%.(%d+):') then
    redis.call('PEXPIRE', lead_of(renewing), WAKING.LEAD_LIFE)
  end
end
return answer
