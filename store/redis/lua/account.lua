-- The beginning of the scripts that make room in an account; they set total before they forget.
-- KEYS: objects, age, expiry, account, doomed
local objects, age, expiry, account, doomed = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local total -- bytes

-- forget takes an object out of the account and returns its seq.
local function forget(o)
  local entry = redis.call('HGET', objects, o)
  redis.call('HDEL', objects, o)
  redis.call('ZREM', age, o)
  redis.call('ZREM', expiry, o)
  if not entry then return '0' end
  total = total - tonumber(string.match(entry, '^%d+'))
  if string.sub(o, 1, 1) == '@' then redis.call('HINCRBY', account, 'places', -1) end
  return string.match(entry, '%d+$')
end

-- expire takes out of the account what has expired by now, in milliseconds.
local function expire(now)
  for _, o in ipairs(redis.call('ZRANGEBYSCORE', expiry, '-inf', now, 'LIMIT', 0, 1000)) do forget(o) end
end

