-- Notes what is stored behind a place, and keeps the notes at least as long as asked.
-- KEYS: marks
-- ARGV: name, object, life (ms), most marks
-- Returns how many there are now, or 0 when there is nothing new to account for.
local new = redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0
if new and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[4]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
local left = redis.call('PTTL', KEYS[1])
if left < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
if not new and left >= tonumber(ARGV[3]) * 9 / 10 then return 0 end
return redis.call('HLEN', KEYS[1])
