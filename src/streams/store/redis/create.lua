-- Makes a stream, unless there is one of that name.
-- ARGV: name, kind, epoch, ttl, until, until as it was said, owner, closed, bytes, ends, node, source, number of the source,
-- position in it, depth, bound on streams, age that is kept in ms, bound on streams of a subscription, whether it is shared, the version
-- of the patterns that the caller knows, and the subscriptions whose patterns match.
local name, kind, epoch, ttl, until_at, until_text, owner = unpack(ARGV, 2, 8)
local closed, bytes, ends, node, source, source_id, position, depth = unpack(ARGV, 9, 16)
local max, keep_ms, max_links = tonumber(ARGV[17]), tonumber(ARGV[18]), tonumber(ARGV[19])
local shared = ARGV[20] == '1' and '1' or ''

-- The stream becomes one of the subscription's, new from its beginning on.
local function link(id)
  local links = key('k', id)
  local there = redis.call('HGET', links, name)
  if there then
    if string.find(there, '^%a*g') then return end
    redis.call('HSET', links, name, (string.gsub(there, '^%a+', '%0g')))
    -- Whoever is writing that link just now has to look again.
    redis.call('HSET', key('u', id), 'version', text(redis.call('INCR', P .. 'versions')))
  elseif redis.call('HLEN', links) >= max_links then
    redis.call('INCR', P .. 'left')
  else
    redis.call('HSET', links, name, 'g')
    redis.call('SADD', key('w', name), id)
  end
end

-- Tells the subscriptions whose it is to be, and those whose it was before there was one.
local function discover()
  for i = 22, #ARGV do
    if is_open(owner ~= '' and owner, shared, key_of(ARGV[i])) then link(ARGV[i]) end
  end
  if redis.call('EXISTS', key('w', name)) == 1 then
    redis.call('HSET', key('s', name), 'watched', '1')
    rouse(name, true)
  end
end

if find(name, NOW) then return { 'there' } end
if tonumber(redis.call('GET', P .. 'count') or '0') >= max then return { 'full' } end
if ARGV[21] ~= globs_version() then return { 'globs' } end
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
-- Of one whose own key was evicted these may be left. Not the first to be written: Redis refuses a script for want of memory only
-- before it has written anything, and this needs none.
redis.call('DEL', key('l', name), key('p', name))
set('kind', kind)
set('epoch', epoch)
set('ttl', ttl)
set('until', until_at)
set('until_text', until_text)
set('owner', owner)
set('shared', shared)
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
discover()
return { 'made' }
