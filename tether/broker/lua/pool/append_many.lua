-- Adds tokens to the streams of running attempts, and renews their leases.
-- ARGV: epoch, lease (ms), then for each: job, dispatch, attempt, draw, run, offset, count, kind, data
-- kind: 'delta'; 'restarted' opens a higher run at the offset given, with no tokens.
-- Answers: {'epoch'} or {'ok', code, offset, code, offset...}. Codes: 'ok'; 'cancelled', 'expired' (added, and the
-- attempt shall end so); 'fenced'; 'offset' (nothing added: the stream stands at that offset); 'unknown'.
if is_stale(ARGV[1]) then
  return {'epoch'}
end
local now = now_ms()
local until_ms = now + tonumber(ARGV[2])
local answer = {'ok'}
local charges = {}

for i = 3, #ARGV, 9 do
  local id, draw, run, offset, made, kind = ARGV[i], ARGV[i + 3], tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5]),
    tonumber(ARGV[i + 6]), ARGV[i + 7]
  local name = job_of(id)
  local job = redis.call('HMGET', name, 'fence', 'run', 'offset', 'n', 'cancel', 'deadline', 'pool', 'priority', 'tenant', 'weight')
  local its_fence = fence(ARGV[i + 1], ARGV[i + 2], draw)
  local code
  if kind == 'restarted' then
    code = check(job, id, its_fence, draw, job[2] and tonumber(job[2]), job[3] and tonumber(job[3]))
    if code == 'ok' and run <= tonumber(job[2]) then
      code = 'offset'
    end
  else
    code = check(job, id, its_fence, draw, run, offset)
  end
  local stands_at = job[3] or '0'
  if code == 'ok' then
    local n = integer(tonumber(job[4]) + 1)
    stands_at = integer(offset + made)
    say(id, run, offset + made, tonumber(n), kind, ARGV[i + 8])
    redis.call('HSET', name, 'offset', stands_at, 'n', n, 'run', integer(run))
    redis.call('ZADD', leases, until_ms, 'j ' .. id)
    if made > 0 then
      local account = job[7] .. ' ' .. job[8] .. ' ' .. job[9]
      charges[account] = (charges[account] or 0) + made / tonumber(job[10])
    end
    if job[5] ~= '' then
      code = job[5]
    elseif job[6] ~= '0' and tonumber(job[6]) <= now then
      code = 'expired'
    end
  end
  answer[#answer + 1] = code
  answer[#answer + 1] = stands_at
end
for account, tokens in pairs(charges) do
  local pool, priority, tenant = string.match(account, '^(%S+) (%S+) (.*)$')
  charge(pool, priority, tenant, tokens)
end
return answer
