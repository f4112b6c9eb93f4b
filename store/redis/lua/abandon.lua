-- Gives up what was sent of an object, unless it has been committed: then somebody may rely on it.
-- KEYS: manifest, then the tiles, or the hash with the blob
-- ARGV: version
-- Returns 1 when it has been committed.
if redis.call('HGET', KEYS[1], 'version') == ARGV[1] then return 1 end
if #KEYS > 1 then redis.call('UNLINK', unpack(KEYS, 2)) end
return 0
