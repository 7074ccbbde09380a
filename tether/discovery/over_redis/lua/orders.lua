-- KEYS[1]: <namespace>:fleet:order
-- Returns all worker ids and orders, one after the other, with spaces between: one text is read far sooner than
-- many.
return table.concat(redis.call('HGETALL', KEYS[1]), ' ')
