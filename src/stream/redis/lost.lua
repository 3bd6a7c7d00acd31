-- Redis knows less of a stream than it has told before: what it tells from here on is another log. ARGV: name, number, the
-- epoch that was, the one that is to be.
local name, id, was, is = unpack(ARGV, 2, 5)
local meta = load(name)
if meta and meta.id == id and meta.epoch == was then
  redis.call('HSET', key('s', name), 'epoch', is)
  tell(name)
end
return { 'ok' }
