-- Puts an object that is new in one step: its manifest, its place in the account and room for it. Only where one script may use
-- the keys of both.
-- KEYS: objects, age, expiry, account, doomed, manifest, the hash that becomes the manifest, then the tiles
-- ARGV: object, bytes, ttl (ms, 0 = never), quota (bytes, 0 = none), seq, version, life of the tiles (ms)
-- Returns {seq, 0, doomed object, its seq, ...}. Where nothing was done: {0, 2} when the object is not new, {0, 4} when what was
-- sent is gone, {time, 3} when seq is more than a second away from the server's time (in microseconds).
local object, ttl, quota, seq = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

local function no(...)
  if #KEYS > 7 then redis.call('UNLINK', KEYS[7]) end -- what is done instead needs the tiles alone
  return {...}
end

local late = {} -- of a tenant without a quota the sweep removes what was evicted under an earlier one
if quota > 0 then late = redis.call('HRANDFIELD', doomed, 256, 'WITHVALUES') end
if (quota == 0 or #late > 0) and redis.call('HEXISTS', doomed, object) == 1 then return no('0', 2) end
local time = redis.call('TIME')
local micros = time[1] * 1000000 + time[2]
if math.abs(micros - seq) > 1000000 then return no(string.format('%.0f', micros), 3) end
for i = 8, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 0 then return no('0', 4) end
end

-- A full server has refused what was sent with this script, so what little this adds is no matter.
local moved = redis.pcall('RENAMENX', KEYS[7], KEYS[6])
if moved == 0 then
  if redis.pcall('HGET', KEYS[6], 'version') ~= ARGV[6] then return no('0', 2) end
  return {ARGV[5], 0} -- its own: the answer was lost, and it is sent again
end
if moved ~= 1 then return no('0', 4) end
if redis.call('HSETNX', objects, object, ARGV[2] .. ' ' .. ARGV[5]) == 0 then -- known: back again
  redis.call('RENAME', KEYS[6], KEYS[7])
  return no('0', 2)
end
if ttl > 0 then redis.call('PEXPIRE', KEYS[6], ttl) else redis.call('PERSIST', KEYS[6]) end
for i = 8, #KEYS do
  if ttl > 0 then redis.call('PEXPIRE', KEYS[i], ARGV[7]) else redis.call('PERSIST', KEYS[i]) end
end
local now = math.floor(micros / 1000)
redis.call('ZADD', age, ARGV[5], object)
if ttl > 0 then redis.call('ZADD', expiry, now + ttl, object) else redis.call('ZREM', expiry, object) end
local sums = redis.call('HMGET', account, 'bytes', 'seq')
total = tonumber(sums[1] or '0') + tonumber(ARGV[2])

local over = quota > 0 and total > quota
if over or seq % 16 == 0 then -- what has expired is counted until then, and by usage never
  expire(now)
end
while over and total > quota do
  local victim
  for _, o in ipairs(redis.call('ZRANGE', age, 0, 1)) do
    if o ~= object then victim = o break end
  end
  if not victim then break end
  local its = forget(victim)
  redis.call('HSET', doomed, victim, its)
  late[#late + 1], late[#late + 2] = victim, its
end
local last = sums[2] or '0'
if tonumber(last) < seq then last = ARGV[5] end
redis.call('HSET', account, 'bytes', string.format('%.0f', total), 'seq', last)
local reply = {ARGV[5], 0}
for _, v in ipairs(late) do reply[#reply + 1] = v end
return reply
