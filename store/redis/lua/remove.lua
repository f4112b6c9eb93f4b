-- Removes one version of an object, manifest and tiles, unless another one has taken its place.
-- KEYS: manifest, then the tiles
-- ARGV: version
if (redis.call('HGET', KEYS[1], 'version') or '') ~= ARGV[1] then return 0 end
redis.call('UNLINK', unpack(KEYS))
return 1
