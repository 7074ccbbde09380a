-- Ends an attempt with success: its last tokens, the last event and the outcome in one step.
-- ARGV: epoch, job, dispatch, attempt, draw, run, offset, count, data, input tokens, finish reason
-- Answers: {code, offset}. Codes: 'ok', also where it was done before; 'epoch', 'fenced', 'offset', 'unknown'.
if is_stale(ARGV[1]) then
  return {'epoch', '0'}
end
local id, draw = ARGV[2], ARGV[5]
local run, offset, made = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local name = job_of(id)
local job = redis.call('HMGET', name, 'fence', 'run', 'offset', 'n', 'state', 'worker', 'pool', 'priority', 'tenant', 'weight',
  'deaths')
local its_fence = fence(ARGV[3], ARGV[4], draw)
if job[1] == its_fence and job[5] == 'succeeded' then
  return {'ok', job[3]}
end
local code = check(job, id, its_fence, draw, run, offset)
if code == 'ok' and job[5] ~= RUNNING then
  code = 'fenced'
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
redis.call('HSET', name, 'state', 'succeeded', 'offset', stands_at, 'n', integer(n + 1), 'said', '1')
let_go(id, job[6])
say(id, run, offset + made, n + 1, 'finished', '{"reason":"' .. ARGV[11] .. '","input_tokens":' .. ARGV[10] .. '}')
add_outcome(id, 'succeeded', now_ms(), '', ARGV[10], ARGV[11],
  {ARGV[3], ARGV[4], draw, job[6], ARGV[6], stands_at, job[11]})
return {'ok', stands_at}
