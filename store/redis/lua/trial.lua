-- Writes, as every put does by a script.
-- KEYS: trial
-- ARGV: owner
redis.call('SET', KEYS[1], ARGV[1], 'PX', 60000)
return 1
