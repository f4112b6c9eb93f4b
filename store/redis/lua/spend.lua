-- Takes off a budget that refills evenly what was used of it. It may go below zero: what was used is owed.
-- KEYS: budget
-- ARGV: size, window (ms), used
-- Returns what is left, as text: a number would lose what lies behind the point.
local size, window, used = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local was = redis.call('HMGET', KEYS[1], 'left', 'at')
local left = size
if was[1] then
  left = math.min(size, tonumber(was[1]) + math.max(0, now - tonumber(was[2])) * size / window)
end
left = math.min(size, left - used)
redis.call('HSET', KEYS[1], 'left', string.format('%.3f', left), 'at', string.format('%.0f', now))
-- When it is full again it need not be kept.
redis.call('PEXPIRE', KEYS[1], math.ceil(math.max(1000, (size - left) * window / size)) + 60000)
return string.format('%.3f', left)
