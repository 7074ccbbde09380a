-- Workers of former versions note nothing. Theirs is what follows from a draw: they stand idle, or hold jobs.
-- KEYS[1]: <namespace>:core:seen
-- ARGV: boot ids
-- Returns for each: {ms since it stood idle, its pools}, or {'', ''} where it does not; and '1' where it holds jobs.
local prefix = string.sub(KEYS[1], 1, -10)
-- So long a worker stands in the idle sets after a draw (ms).
local IDLE_LIFE = 60000
local answer = {}
for i = 1, #ARGV do
  local idle = prefix .. 'idle:' .. ARGV[i]
  local pools = redis.pcall('GET', idle)
  local stands = type(pools) == 'string'
  answer[#answer + 1] = stands and string.format('%.0f', math.max(0, IDLE_LIFE - redis.call('PTTL', idle))) or ''
  answer[#answer + 1] = stands and pools or ''
  answer[#answer + 1] = redis.call('EXISTS', prefix .. 'drawn:' .. ARGV[i]) == 1 and '1' or '0'
end
return answer
