-- Ends an attempt without success; what the attempt made until then stays.
-- ARGV: epoch, job, dispatch, attempt, draw, run, offset, count, data, kind, error (JSON)
-- kind: 'failed' (the database decides whether it is tried again), 'cancelled' or 'expired' (as told by
-- append_many or beat).
-- Answers: {code, offset}. Codes: 'ok', also where it was done before; 'epoch', 'fenced', 'offset', 'unknown'.
if is_stale(ARGV[1]) then
  return {'epoch', '0'}
end
local ending, kind = read_ending(), ARGV[10]
if ending.is_its_own and ending.state == kind then
  return {'ok', ending.stands_at}
end
if ending.code ~= 'ok' or ending.state ~= RUNNING then
  return {ending.code == 'ok' and 'fenced' or ending.code, ending.stands_at}
end
local id, stands_at, now = ending.id, add_last_tokens(ending), now_ms()
redis.call('HSET', job_of(id), 'state', kind, 'offset', stands_at, 'n', integer(ending.n))
let_go(id, ending.worker)
write_outcome(id, kind, now, ARGV[11])
if kind ~= 'failed' then
  close(id, kind, now)
end
return {'ok', stands_at}
