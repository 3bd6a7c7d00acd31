-- A subscription ends. ARGV: id, the key that it is asked with.
local id = ARGV[2]
local who = key_of(id)
if who ~= '' and who ~= ARGV[3] then return { 'foreign' } end
for _, path in ipairs(redis.call('HKEYS', key('k', id))) do
  redis.call('SREM', key('w', path), id)
end
redis.call('DEL', key('u', id), key('k', id), key('q', id))
if redis.call('HDEL', P .. 'globs', id) == 1 then redis.call('INCR', P .. 'globs:version') end
redis.call('ZREM', P .. 'wakes', id)
return { 'ok' }
