-- Makes a written object visible: its tiles get their real life and the manifest names them, or nothing happens.
-- KEYS: manifest, then the tiles, or the hash with the blob that becomes the manifest, then those of the version that is replaced
-- ARGV: number of tiles (-1: the blob is in a hash), version that is replaced (empty: none), life of the manifest (ms, 0 = for ever),
--       life of the tiles, then the manifest's fields and values
-- Returns 1; 0 when another version is there than the one to be replaced; 2 when a later one is; -1 when a tile is gone.
local tiles = tonumber(ARGV[1])
local there = redis.call('HMGET', KEYS[1], 'version', 'seq')
if (tonumber(there[2] or '0') or 0) > tonumber(ARGV[8]) then return 2 end
if there[1] == ARGV[6] then return 1 end -- its own: the answer was lost, and it is sent again
if (there[1] or '') ~= ARGV[2] then return 0 end
for i = 2, tiles + 1 do
  local kept
  if ARGV[3] == '0' then kept = redis.call('PERSIST', KEYS[i]) else kept = redis.call('PEXPIRE', KEYS[i], ARGV[4]) end
  if kept == 0 then return -1 end
end
if tiles < 0 then
  if redis.call('EXISTS', KEYS[2]) == 0 then return -1 end
  redis.call('HSET', KEYS[2], unpack(ARGV, 5))
  redis.call('RENAME', KEYS[2], KEYS[1])
  if ARGV[3] == '0' then redis.call('PERSIST', KEYS[1]) end
  tiles = 1
else
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], unpack(ARGV, 5))
end
if ARGV[3] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
for i = tiles + 2, #KEYS do redis.call('UNLINK', KEYS[i]) end
return 1
