-- Makes these pools the paused ones, and no others: nobody draws from them. Workers that wait for one that is paused no
-- more are woken.
-- ARGV: pool...
-- Returns: {how many were paused by that, how many resumed}
pass_memory_limit()
for i = 1, #ARGV do
  if not is_word(ARGV[i]) then
    return refuse('set_paused: ' .. i .. ' is no name of a pool')
  end
end
local now, paused, shall = now_ms(), key('core:paused'), {}
local count, resumed = 0, {}
for _, pool in ipairs(ARGV) do
  shall[pool] = true
end
for _, pool in ipairs(apply('SMEMBERS', paused)) do
  if not shall[pool] then
    resumed[#resumed + 1] = pool
  end
end
for _, pool in ipairs(ARGV) do
  count = count + apply('SADD', paused, pool)
end
for _, pool in ipairs(resumed) do
  apply('SREM', paused, pool)
  if is_word(pool) then
    wake_all(pool, now)
  end
end
return {count, #resumed}
