-- Replaces the enrolled keys and the revoked workers.
-- KEYS[1]: <namespace>:core:trust
-- ARGV: version, number of enrolled keys, each key and its name, then the revoked workers
-- At its memory limit Redis refuses what may take memory only as a script's first write, and a revocation must count: a
-- delete comes first.
redis.call('DEL', KEYS[1] .. ':none')
local base = string.sub(KEYS[1], 1, -6)
local revoked = base .. 'revoked'
redis.call('DEL', KEYS[1], revoked)
local last = 2 + 2 * tonumber(ARGV[2])
for i = 3, last, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
for i = last + 1, #ARGV do
  redis.call('SADD', revoked, ARGV[i])
end
redis.call('SET', KEYS[1] .. '_version', ARGV[1])
