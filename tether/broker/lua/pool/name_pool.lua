-- Names a pool among those with waiting jobs, where it is lost.
-- ARGV: pool
pass_memory_limit()
if #ARGV ~= 1 or not is_word(ARGV[1]) then
  return refuse('name_pool: a pool is needed')
end
return apply('SADD', key('core:pools'), ARGV[1])
