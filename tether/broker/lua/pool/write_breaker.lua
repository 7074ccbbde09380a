-- Writes what is kept of a breaker, unless somebody else has written it since it was read.
-- ARGV: breaker, the number of the write that was read (0 where there was none), what is kept (JSON), what readers are
-- told (JSON; '' where it is closed), for how long it is kept (ms)
-- Returns: the number of this write; 0 where somebody was faster, and nothing was written.
pass_memory_limit()
local MAX_WRITES, MAX_DIGITS = 999999999999999, 15
local name, read_write, life = ARGV[1], whole(ARGV[2], MAX_WRITES), whole(ARGV[5], MAX_LIFE)
if not read_write or not life or #name > MAX_NAME_BYTES or not is_json(ARGV[3], MAX_ERROR_BYTES)
    or ARGV[4] ~= '' and not is_json(ARGV[4], MAX_ERROR_BYTES) then
  return refuse('write_breaker: an argument')
end
local kept = key('breaker:' .. name)
local written = apply('HGET', kept, 'write') or ''
-- Read as readers do: what is no number of ours is 0 for both.
if #written > MAX_DIGITS or not string.find(written, '^%d+$') then
  written = '0'
end
if tonumber(written) ~= read_write then
  return 0
end
redis.call('HSET', kept, 'write', integer(read_write + 1), 'kept', ARGV[3])
redis.call('PEXPIRE', kept, integer(life))
if ARGV[4] == '' then
  apply('HDEL', key('core:open_breakers'), name)
else
  apply('HSET', key('core:open_breakers'), name, ARGV[4])
end
return read_write + 1
