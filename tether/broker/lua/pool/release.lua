-- Hands a running attempt's job over: it waits again at the head of its pool and goes on where it stands.
-- ARGV: epoch, job, dispatch, attempt, draw, run, offset, count, data
-- Answers: {code, offset}. Codes: 'ok', also where it is no longer this attempt's; 'epoch', 'offset', 'unknown'.
if is_stale(ARGV[1]) then
  return {'epoch', '0'}
end
local ending = read_ending()
if ending.code == 'fenced' or (ending.code == 'ok' and ending.state ~= RUNNING) then
  return {'ok', ending.stands_at}
end
if ending.code ~= 'ok' then
  return {ending.code, ending.stands_at}
end
local id, stands_at = ending.id, add_last_tokens(ending)
redis.call('HSET', job_of(id), 'offset', stands_at, 'n', integer(ending.n))
let_go(id, ending.worker)
return_to_pool(id, now_ms(), ending.worker)
return {'ok', stands_at}
