-- Ends an attempt with success: its last tokens, the last event and the outcome in one step.
-- ARGV: epoch, job, dispatch, attempt, draw, run, offset, count, data, input tokens, finish reason
-- Answers: {code, offset}. Codes: 'ok', also where it was done before; 'epoch', 'fenced', 'offset', 'unknown'.
if is_stale(ARGV[1]) then
  return {'epoch', '0'}
end
local ending = read_ending()
if ending.is_its_own and ending.state == 'succeeded' then
  return {'ok', ending.stands_at}
end
if ending.code ~= 'ok' or ending.state ~= RUNNING then
  return {ending.code == 'ok' and 'fenced' or ending.code, ending.stands_at}
end
local id, stands_at = ending.id, add_last_tokens(ending)
local n = ending.n + 1
redis.call('HSET', job_of(id), 'state', 'succeeded', 'offset', stands_at, 'n', integer(n), 'said', '1')
let_go(id, ending.worker)
say(id, ending.run, ending.end_offset, n, 'finished', '{"reason":"' .. ARGV[11] .. '","input_tokens":' .. ARGV[10] .. '}')
add_outcome(id, 'succeeded', now_ms(), '', ARGV[10], ARGV[11],
  {ARGV[3], ARGV[4], ending.draw, ending.worker, ARGV[6], stands_at, ending.deaths})
return {'ok', stands_at}
