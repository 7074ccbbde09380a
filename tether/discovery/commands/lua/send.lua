-- Puts a command into its worker's inbox, and tells those who follow.
-- KEYS[1]: <namespace>:inbox:<worker id>
-- ARGV: envelope, channel, commands that an inbox holds at most, life of an inbox in ms
-- What is no list is none of ours, and would be in the way for ever. Otherwise a key is deleted that never is: at its
-- memory limit Redis refuses what may take memory only as a script's first write, and operators must be able to act.
local is_list = redis.call('TYPE', KEYS[1]).ok == 'list'
redis.call('DEL', is_list and KEYS[1] .. ':none' or KEYS[1])
redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('LTRIM', KEYS[1], -tonumber(ARGV[3]), -1)
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('PUBLISH', ARGV[2], ARGV[1])
