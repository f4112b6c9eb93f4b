-- Takes an object out of its tenant's account, unless it was put again meanwhile.
-- KEYS: objects, age, expiry, account
-- ARGV: object, seq (empty: whatever it is)
local entry = redis.call('HGET', KEYS[1], ARGV[1])
if not entry or (ARGV[2] ~= '' and string.match(entry, '%d+$') ~= ARGV[2]) then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('HINCRBY', KEYS[4], 'bytes', -tonumber(string.match(entry, '^%d+')))
if string.sub(ARGV[1], 1, 1) == '@' then redis.call('HINCRBY', KEYS[4], 'places', -1) end
return 1
