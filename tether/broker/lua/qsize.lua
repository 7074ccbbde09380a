-- ARGV: queue, broker. Messages of the queue and its delay queue, and what this broker holds of both.
local canonical, broker = ARGV[1], ARGV[2]
if string.sub(canonical, -3) == '.DQ' or string.sub(canonical, -3) == '.XQ' then
  canonical = string.sub(canonical, 1, -4)
end
local size = 0
for _, queue in ipairs({canonical, canonical .. '.DQ'}) do
  size = size + redis.call('HLEN', key(queue .. '.msgs')) + redis.call('SCARD', acks_of(broker, queue))
end
return size
