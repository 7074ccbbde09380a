-- Hands a running attempt's job over: it waits again at the head of its pool and goes on where it stands.
-- ARGV: epoch, job, dispatch, attempt, draw, run, offset, count, data
-- Answers: {code, offset}. Codes: 'ok', also where it is no longer this attempt's; 'epoch', 'offset', 'unknown'.
if is_stale(ARGV[1]) then
  return {'epoch', '0'}
end
local id, draw = ARGV[2], ARGV[5]
local run, offset, made = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local name = job_of(id)
local job = redis.call('HMGET', name, 'fence', 'run', 'offset', 'n', 'state', 'worker', 'pool', 'priority', 'tenant', 'weight')
local code = check(job, id, fence(ARGV[3], ARGV[4], draw), draw, run, offset)
if code == 'fenced' or (code == 'ok' and job[5] ~= RUNNING) then
  return {'ok', job[3]}
end
if code ~= 'ok' then
  return {code, job[3] or '0'}
end
local n = tonumber(job[4])
if made > 0 then
  n = n + 1
  say(id, run, offset + made, n, 'delta', ARGV[9])
  charge(job[7], job[8], job[9], made / tonumber(job[10]))
end
local stands_at = integer(offset + made)
redis.call('HSET', name, 'offset', stands_at, 'n', integer(n))
let_go(id, job[6])
return_to_pool(id, now_ms(), job[6])
return {'ok', stands_at}
