-- Ends an attempt without success; what the attempt made until then stays.
-- ARGV: epoch, job, dispatch, attempt, draw, run, offset, count, data, kind, error (JSON)
-- kind: 'failed' (the database decides whether it is tried again), 'cancelled' or 'expired' (as told by
-- append_many or beat).
-- Answers: {code, offset}. Codes: 'ok', also where it was done before; 'epoch', 'fenced', 'offset', 'unknown'.
if is_stale(ARGV[1]) then
  return {'epoch', '0'}
end
local id, draw, kind = ARGV[2], ARGV[5], ARGV[10]
local run, offset, made = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local name = job_of(id)
local job = redis.call('HMGET', name, 'fence', 'run', 'offset', 'n', 'state', 'worker', 'pool', 'priority', 'tenant', 'weight')
local its_fence = fence(ARGV[3], ARGV[4], draw)
if job[1] == its_fence and job[5] == kind then
  return {'ok', job[3]}
end
local code = check(job, id, its_fence, draw, run, offset)
if code == 'ok' and job[5] ~= RUNNING then
  code = 'fenced'
end
if code ~= 'ok' then
  return {code, job[3] or '0'}
end
local now, n = now_ms(), tonumber(job[4])
if made > 0 then
  n = n + 1
  say(id, run, offset + made, n, 'delta', ARGV[9])
  charge(job[7], job[8], job[9], made / tonumber(job[10]))
end
local stands_at = integer(offset + made)
redis.call('HSET', name, 'state', kind, 'offset', stands_at, 'n', integer(n))
let_go(id, job[6])
write_outcome(id, kind, now, ARGV[11])
if kind ~= 'failed' then
  close(id, kind, now)
end
return {'ok', stands_at}
