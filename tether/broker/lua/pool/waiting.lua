-- How much waits in lanes: entries, and an estimate of their bytes from a few of them. It writes nothing.
-- ARGV: pool, priority, tenant, pool, priority, tenant...
-- Returns: for each lane how many entries it has, and how many bytes their bodies have together.
local MAX_LANES = 256
local SAMPLES = 8
if #ARGV % 3 ~= 0 or #ARGV > 3 * MAX_LANES then
  return refuse('waiting: pools, priorities and tenants are needed, of ' .. MAX_LANES .. ' lanes at most')
end
local answer = {}
for i = 1, #ARGV, 3 do
  local list = tenants_of(ARGV[i], ARGV[i + 1]) .. ':' .. ARGV[i + 2]
  local count, bytes, seen = redis.pcall('LLEN', list), 0, 0
  if type(count) == 'table' then
    -- What stands there is no list: whoever places next throws it away.
    count = 0
  end
  local step = math.max(1, math.floor(count / SAMPLES))
  for at = 0, math.min(count, SAMPLES * step) - 1, step do
    local id = string.match(redis.call('LINDEX', list, at), '^(.+) %d+$')
    local size = id and redis.pcall('HSTRLEN', job_of(id), 'body')
    if type(size) == 'number' then
      bytes, seen = bytes + size, seen + 1
    end
  end
  answer[#answer + 1] = count
  answer[#answer + 1] = seen > 0 and math.floor(bytes / seen * count) or 0
end
return answer
