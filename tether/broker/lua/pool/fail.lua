-- Ends an attempt without success; what the attempt made until then stays.
-- ARGV: epoch, job, dispatch, attempt, draw, run, offset, count, data, kind, error (JSON)
-- kind: 'failed' (the database decides whether it is tried again), 'cancelled' or 'expired' (as told by
-- append_many or beat).
-- Returns: {code, offset}. Codes: 'ok', also where it was done before; 'epoch', 'fenced', 'offset', 'unknown',
-- 'invalid', 'unreadable': see append_many.
pass_memory_limit()
if is_stale(ARGV[1]) then
  return {'epoch', '0'}
end
local ending, kind, error = read_ending(2), ARGV[10], ARGV[11]
local id, now = ending.id, now_ms()
if ending.code ~= 'invalid'
    and not ((kind == 'failed' or is_requested_end(kind)) and (error == '' or is_json(error, MAX_ERROR_BYTES))) then
  ending.code = 'invalid'
end
if ending.is_its_own and ending.state ~= RUNNING then
  ending.code = ending.state == kind and 'ok' or 'fenced'
  return {ending.code, ending.stands_at}
end
if ending.code ~= 'ok' then
  return refuse_ending(ending, now, 'fail')
end
local stands_at = add_last_tokens(ending)
if not stands_at then
  ending.code = 'unreadable'
  return refuse_ending(ending, now, 'fail')
end
redis.call('HSET', job_of(id), 'state', kind, 'offset', stands_at, 'n', integer(ending.n), 'group', '', 'suspicion', '')
let_go(id, ending.worker)
log_attempt(id, now, kind, kind == 'failed' and 'database' or 'end')
local code = kind == 'failed' and blamed_code(error)
local was_probe = code and note_failed(worker_of(ending.worker), ending.pool, ending.tenant, id, code, now)
write_outcome(id, kind, now, error, was_probe)
if kind ~= 'failed' then
  close(id, kind, now)
end
return {'ok', stands_at}
