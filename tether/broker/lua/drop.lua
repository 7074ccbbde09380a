-- ARGV: queue, ids. Drops messages that wait in a queue of which no worker takes any. Returns how many.
pass_memory_limit()
local dropped = 0
for i = 2, #ARGV do
  redis.call('LREM', key(ARGV[1]), 0, ARGV[i])
  dropped = dropped + redis.call('HDEL', key(ARGV[1] .. '.msgs'), ARGV[i])
end
return dropped
