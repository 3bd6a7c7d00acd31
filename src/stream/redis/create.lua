-- Makes a stream, unless there is one of that name.
-- ARGV: name, kind, epoch, ttl, until, until as it was said, owner, closed, bytes, ends, node, source, number of the source,
-- position in it, depth, bound on streams, age that is kept in ms.
local name, kind, epoch, ttl, until_at, until_text, owner = unpack(ARGV, 2, 8)
local closed, bytes, ends, node, source, source_id, position, depth = unpack(ARGV, 9, 16)
local max, keep_ms = tonumber(ARGV[17]), tonumber(ARGV[18])

if find(name, NOW) then return { 'there' } end
if tonumber(redis.call('GET', P .. 'count') or '0') >= max then return { 'full' } end
local meta = { name = name, start = '0', tail = '0' }
local fields = {}
local function set(what, value)
  if value ~= '' then
    meta[what] = value
    fields[#fields + 1] = what
    fields[#fields + 1] = value
  end
end
if source ~= '' then
  local from = find(source, NOW)
  if not from or from.id ~= source_id then return { 'nosource' } end
  if from.presence ~= 'p' then return { 'sourcegone' } end
  if tonumber(position) > tonumber(from.tail) then return { 'badoffset' } end
  redis.call('HINCRBY', key('s', source), 'forks', 1)
  set('base', source)
  set('base_at', position)
  set('depth', depth)
  meta.start, meta.tail = position, position
end
set('id', text(redis.call('INCR', P .. 'ids')))
set('kind', kind)
set('epoch', epoch)
set('ttl', ttl)
set('until', until_at)
set('until_text', until_text)
set('owner', owner)
set('closed', closed)
set('node', node)
set('used', text(NOW))
set('forks', '0')
set('lost', '0')
set('presence', 'p')
put(meta, bytes, NOW, ends ~= '' and { 'e', ends } or {})
set('start', meta.start)
set('tail', meta.tail)
redis.call('HSET', key('s', name), unpack(fields))
redis.call('INCR', P .. 'count')
if node ~= '' then
  -- One that dies before its first word is missed as well.
  redis.call('ZADD', P .. 'nodes', 'NX', text(NOW), node)
  redis.call('SADD', key('g', node), name)
end
schedule(meta, keep_ms)
return { 'made' }
