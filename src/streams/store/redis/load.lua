-- A subscription, and those streams of it that are not as their links say, at one moment.
-- ARGV: id, whether it is looked at because it was due, the key that it is made with if it is, paths of streams that may become
-- its own.
-- One that was due and has nothing to do is laid to rest here, so that nothing can happen in between.
local id, looks = ARGV[2], ARGV[3] == '1'

local it = redis.call('HMGET', key('u', id), 'version', 'head', 'rests', 'filled', 'wake')
local version, head, rests, filled, wake = unpack(it)
local who = version and key_of(id) or ARGV[4]
if looks and not version then redis.call('ZREM', P .. 'wakes', id) end
local streams, is_quiet = {}, rests ~= '0' and filled == '1'
local function add(path)
  local found, last = extent(path, who), #streams
  streams[last + 1] = path
  streams[last + 2], streams[last + 3] = found and found.id or '', found and found.epoch or ''
  streams[last + 4], streams[last + 5] = found and found.start or '', found and found.tail or ''
  return found
end
for _, path in ipairs(redis.call('SMEMBERS', key('q', id))) do
  local link, found = redis.call('HGET', key('k', id), path), add(path)
  is_quiet = is_quiet and link and is_done(link, found)
end
if looks and version and is_quiet then
  redis.call('DEL', key('q', id))
  redis.call('HSET', key('u', id), 'rests', '1')
  redis.call('ZADD', P .. 'wakes', '+inf', id)
  return { 'rests' }
end
for i = 5, #ARGV do add(ARGV[i]) end
-- Where the event of a wake would go.
local stream = wake and wake ~= '' and find(wake, NOW)
if stream then
  local takes = stream.presence == 'p' and stream.closed ~= '1' and not stream.node
  if not takes or not is_open(stream.owner, stream.shared, who) then stream = nil end
end
return {
  'there', text(NOW), version or '', head or '', filled or '', stream and stream.id or '', stream and stream.kind or '',
  redis.call('HGETALL', key('k', id)), streams,
}
