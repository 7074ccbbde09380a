-- Puts a worker's manifest where it is looked for, and tells those who wait.
-- KEYS[1]: <namespace>:fleet:manifest:<worker id>, also the channel
-- ARGV: envelope, life in ms
-- At its memory limit Redis refuses what may take memory only as a script's first write: a delete comes first, of a key
-- that never is. Somebody waits for it.
redis.call('DEL', KEYS[1] .. ':none')
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('PUBLISH', KEYS[1], '')
