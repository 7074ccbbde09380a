-- Ends an attempt with success: its last tokens, the last event and the outcome in one step.
-- ARGV: epoch, job, dispatch, attempt, draw, run, offset, count, data, input tokens, finish reason
-- Returns: {code, offset}. Codes: 'ok', also where it was done before; 'epoch', 'fenced', 'offset', 'unknown',
-- 'invalid', 'unreadable': see append_many.
pass_memory_limit()
if is_stale(ARGV[1]) then
  return {'epoch', '0'}
end
local ending, input, reason = read_ending(2), whole(ARGV[10], MAX_TOKENS), ARGV[11]
local id, now = ending.id, now_ms()
if ending.code ~= 'invalid' and not (input and #reason <= 32 and string.find(reason, '^[%w_]+$')) then
  ending.code = 'invalid'
end
if ending.is_its_own and ending.state ~= RUNNING then
  ending.code = ending.state == 'succeeded' and 'ok' or 'fenced'
  return {ending.code, ending.stands_at}
end
if ending.code ~= 'ok' then
  return refuse_ending(ending, now, 'finish')
end
-- No client knows any other reason than these two.
reason = reason == 'length' and reason or 'stop'
local last = '{"reason":"' .. reason .. '","input_tokens":' .. integer(input) .. '}'
local stands_at = add_last_tokens(ending)
local n = ending.n + 1
if not stands_at or not say(id, ending.run, ending.end_offset, n, 'finished', last) then
  ending.code = 'unreadable'
  return refuse_ending(ending, now, 'finish')
end
redis.call('HSET', job_of(id), 'state', 'succeeded', 'offset', stands_at, 'n', integer(n), 'said', '1')
let_go(id, ending.worker)
if ending.cost then
  -- It was drawn at an estimate.
  local rest = (input - ending.cost) * FAIR.INPUT_PRICE / ending.weight
  if rest > 0 then
    charge(ending.pool, ending.priority, ending.tenant, rest)
  elseif rest < 0 then
    give_back(ending.pool, ending.priority, ending.tenant, -rest)
  end
end
note_good_end(id, ending.worker, ending.pool, ending.tenant, now)
log_attempt(id, now, 'succeeded', 'end')
note_succeeded(worker_of(ending.worker), ending.pool, now)
add_outcome(id, 'succeeded', now, '', integer(input), reason, ending.dispatch, ending.attempt, ending.draw,
  ending.worker, integer(ending.run), stands_at, integer(ending.deaths))
return {'ok', stands_at}
