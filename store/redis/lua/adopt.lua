-- Adds an object that is stored, but not in its tenant's account, unless it is about to go.
-- KEYS: objects, age, expiry, account, doomed
-- ARGV: object, bytes, seq, life that is left (ms, negative = for ever)
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 or redis.call('HEXISTS', KEYS[5], ARGV[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. ARGV[3])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
local life = tonumber(ARGV[4])
if life >= 0 then
  local now = redis.call('TIME')
  redis.call('ZADD', KEYS[3], now[1] * 1000 + math.floor(now[2] / 1000) + life, ARGV[1])
end
redis.call('HINCRBY', KEYS[4], 'bytes', ARGV[2])
if string.sub(ARGV[1], 1, 1) == '@' then redis.call('HINCRBY', KEYS[4], 'places', 1) end
return 1
