-- Adds an object to its tenant's account and makes room for it, in one step.
-- KEYS: objects, age, expiry, account, doomed
-- ARGV: object, bytes, ttl (ms, 0 = never), quota (bytes, 0 = none), replace (1: also when it is there already),
--       another object that is not to make room (of a place: what it leads to)
-- Returns {seq, known, doomed object, its seq, ...}: known is 1 when it was there and nothing of it was changed.
local object, size, ttl, quota = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
-- The first write is one that a full server refuses: after another (a removal) Redis would let this script grow over maxmemory.
redis.call('HINCRBY', account, 'places', 0)
local sums = redis.call('HMGET', account, 'bytes', 'seq')
local last = tonumber(sums[2] or '0')
total = tonumber(sums[1] or '0')

expire(now)

local known, seq = 0, 0
local entry = redis.call('HGET', objects, object)
if entry and ARGV[5] ~= '1' then
  known, seq = 1, tonumber(string.match(entry, '%d+$'))
else
  if entry then forget(object) else redis.call('ZREM', expiry, object) end
  -- Microseconds, so that an account that was lost never counts below what it has given out.
  seq = math.max(now * 1000, last + 1)
  redis.call('HSET', objects, object, string.format('%d %.0f', size, seq))
  if string.sub(object, 1, 1) == '@' then redis.call('HINCRBY', account, 'places', 1) end
  redis.call('ZADD', age, seq, object)
  if ttl > 0 then redis.call('ZADD', expiry, now + ttl, object) end
  last = math.max(last, seq)
  redis.call('HDEL', doomed, object)
  total = total + size
end

while quota > 0 and total > quota do
  local victim
  for _, o in ipairs(redis.call('ZRANGE', age, 0, 2)) do
    if o ~= object and o ~= ARGV[6] then victim = o break end
  end
  if not victim then break end
  redis.call('HSET', doomed, victim, forget(victim))
end
redis.call('HSET', account, 'bytes', string.format('%.0f', total), 'seq', string.format('%.0f', last))

local reply = {string.format('%.0f', seq), known}
for _, v in ipairs(redis.call('HRANDFIELD', doomed, 256, 'WITHVALUES')) do reply[#reply + 1] = v end
return reply
