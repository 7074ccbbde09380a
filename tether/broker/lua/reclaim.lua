-- ARGV: queue, broker, ids that the process has in memory. Gives back all else that its ack set holds.
local queue, broker = ARGV[1], ARGV[2]
local kept = {}
for i = 3, #ARGV do
  kept[ARGV[i]] = true
end
local stranded = {}
for _, id in ipairs(redis.call('SMEMBERS', acks_of(broker, queue))) do
  if not kept[id] then
    release(queue, broker, id)
    stranded[#stranded + 1] = id
  end
end
return put_back(queue, stranded)
