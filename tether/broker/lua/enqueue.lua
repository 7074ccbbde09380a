-- ARGV: queue, id, data. Answers 1, or 0 where the id is known already.
return put(ARGV[1], ARGV[2], ARGV[3])
