-- An answer is called something by its maker. ARGV: name of the stream, its number, what it is called.
local name, id, answer = unpack(ARGV, 2, 4)
local meta = find(name, NOW)
if not meta or meta.id ~= id or meta.presence ~= 'p' or meta.answer then return { 'gone' } end
redis.call('HSET', key('s', name), 'answer', answer)
redis.call('SET', key('a', answer), name)
return { 'ok' }
