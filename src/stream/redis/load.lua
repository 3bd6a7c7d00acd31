-- A subscription, and its streams as they are, at one moment.
-- ARGV: id, whether it is looked at because it was due, paths of streams that may become its own.
-- One that was due and has nothing to do is laid to rest here, so that nothing can happen in between.
local id, looks = ARGV[2], ARGV[3] == '1'

local it = redis.call('HMGET', key('u', id), 'version', 'head', 'rests', 'filled', 'wake')
local version, head, rests, filled, wake = unpack(it)
if looks and not version then redis.call('ZREM', P .. 'wakes', id) end
local streams = {}
local function add(path, link, found)
  local last = #streams
  streams[last + 1], streams[last + 2] = path, link
  streams[last + 3], streams[last + 4] = found and found.id or '', found and found.epoch or ''
  streams[last + 5], streams[last + 6] = found and found.start or '', found and found.tail or ''
end
local links = redis.call('HGETALL', key('k', id))
local is_quiet, is_link = rests ~= '0' and filled == '1', {}
for i = 1, #links, 2 do
  local found = extent(links[i])
  is_quiet = is_quiet and is_done(links[i + 1], found)
  is_link[links[i]] = true
  add(links[i], links[i + 1], found)
end
if looks and version and is_quiet then
  redis.call('HSET', key('u', id), 'rests', '1')
  redis.call('ZADD', P .. 'wakes', '+inf', id)
  return { 'rests' }
end
for i = 4, #ARGV do
  if not is_link[ARGV[i]] then add(ARGV[i], '', extent(ARGV[i])) end
end
-- Where the event of a wake would go.
local stream = wake and wake ~= '' and find(wake, NOW)
if stream and (stream.presence ~= 'p' or stream.owner or stream.closed == '1') then stream = nil end
return {
  'there', text(NOW), version or '', head or '', filled or '', stream and stream.id or '', stream and stream.kind or '',
  streams,
}
