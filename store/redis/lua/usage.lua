-- Drops what has expired from a tenant's account and returns {objects, bytes}; places are bytes, and no objects. An account without objects goes away.
-- KEYS: objects, age, expiry, account, doomed
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
while true do
  local gone = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, 1000)
  for _, o in ipairs(gone) do
    local entry = redis.call('HGET', KEYS[1], o)
    redis.call('HDEL', KEYS[1], o)
    redis.call('ZREM', KEYS[2], o)
    redis.call('ZREM', KEYS[3], o)
    if entry and string.sub(o, 1, 1) == '@' then redis.call('HINCRBY', KEYS[4], 'places', -1) end
    if entry then redis.call('HINCRBY', KEYS[4], 'bytes', -tonumber(string.match(entry, '^%d+'))) end
  end
  if #gone < 1000 then break end
end
local n = redis.call('HLEN', KEYS[1])
if n == 0 and redis.call('EXISTS', KEYS[4], KEYS[5]) == 1 then redis.call('DEL', KEYS[4]) end
return {n - tonumber(redis.call('HGET', KEYS[4], 'places') or '0'), tonumber(redis.call('HGET', KEYS[4], 'bytes') or '0')}
