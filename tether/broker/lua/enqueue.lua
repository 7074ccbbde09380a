-- ARGV: queue, id, data, producer. Returns 1, or 0 where this very call was carried out before.
if redis.call('SET', key('sent:' .. ARGV[4]), ARGV[2], 'EX', SENT_LIFE, 'GET') == ARGV[2] then
  return 0
end
return put(ARGV[1], ARGV[2], ARGV[3])
