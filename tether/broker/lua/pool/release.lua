-- Hands a running attempt's job over: it waits again at the head of its pool and goes on where it stands.
-- ARGV: epoch, job, dispatch, attempt, draw, run, offset, count, data, to_tail (may be missing; '1': it waits behind its
-- tenant's other jobs instead), avoid_ms (may be missing: for so long this worker is not given it again; at most MAX_AVOID_LIFE)
-- Returns: {code, offset}. Codes: 'ok', also where it is no longer this attempt's; 'epoch', 'offset', 'unknown',
-- 'invalid', 'unreadable': see append_many.
pass_memory_limit()
if is_stale(ARGV[1]) then
  return {'epoch', '0'}
end
local ending = read_ending(math.max(0, math.min(#ARGV - 9, 2)))
local avoid_ms = ARGV[11] and whole(ARGV[11], MAX_AVOID_LIFE)
if ARGV[11] and not avoid_ms and ending.code == 'ok' then
  ending.code = 'invalid'
end
local id, now = ending.id, now_ms()
if ending.code == 'fenced' or (ending.is_its_own and ending.state ~= RUNNING) then
  return {'ok', ending.stands_at}
end
if ending.code ~= 'ok' then
  return refuse_ending(ending, now, 'release')
end
local stands_at = add_last_tokens(ending)
if not stands_at then
  ending.code = 'unreadable'
  return refuse_ending(ending, now, 'release')
end
redis.call('HSET', job_of(id), 'offset', stands_at, 'n', integer(ending.n))
let_go(id, ending.worker)
note_hand_over(id, now)
if return_to_pool(id, now, ending.worker, 'released', ARGV[10] == '1') == WAITING and avoid_ms then
  redis.call('HSET', job_of(id), 'avoid_until', integer(now + avoid_ms))
end
return {'ok', stands_at}
