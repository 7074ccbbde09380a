-- Runs a command that Redis would refuse at its memory limit: one of the few without which others stand still, and which
-- takes next to no memory.
-- KEYS[1]: the key that it writes. ARGV: the command.
-- Returns its reply. Only a script's first write is refused there; so a delete comes first, of a key that never is.
redis.call('DEL', KEYS[1] .. ':none')
return redis.pcall(unpack(ARGV))
