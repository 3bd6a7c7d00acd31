-- What all scripts share. Each is one step for Redis: nobody sees half of what it does.
--
--   sedge:epoch             which life of the store this is
--   sedge:order  sedge:ids  places in the order of all appends, numbers of streams
--   sedge:s:NAME            a stream (hash); its fields are those of `Meta` in meta.rs
--   sedge:l:NAME            its log (Redis Stream): an entry's id is the position where its bytes end
--   sedge:p:NAME            its producers (hash): epoch and last number, -1 before the first
--   sedge:a:NAME            the stream of an answer that is called so by its maker
--   sedge:due               when to look at which stream again (sorted set)
--   sedge:count             how many streams there are
--   sedge:nodes             when each node was last heard of (sorted set)
--   sedge:since             since when it has been heard of without a gap (hash)
--   sedge:g:NODE            the answers that it is writing (set)
--   sedge:secret            what the keys of subscriptions are made of
--   sedge:u:ID              a subscription (hash); see commit.lua
--   sedge:k:ID              its streams (hash): path, and which link that is; see `is_done`
--   sedge:q:ID              those of them that it may have something to do for (set); the others are as their links say
--   sedge:w:NAME            the subscriptions that have this stream (set)
--   sedge:globs             the patterns of subscriptions (hash): id, and pattern, line break, wake stream
--   sedge:globs:version     changes with them; nodes match new streams themselves, by a copy of that version
--   sedge:wakes             when to look at which subscription (sorted set); `inf` is when something happens
--   sedge:versions          versions of subscriptions: none is given twice
--   sedge:left              how often a subscription that was full has missed a stream
--
-- ARGV[1] is the life of the store that the caller knows: of another one it knows nothing.

local P = 'sedge:'
local EPOCH = ARGV[1]
local NOW

local function key(kind, name) return P .. kind .. ':' .. name end

local function text(number) return string.format('%.0f', number) end

local function clock()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function is_current() return redis.call('GET', P .. 'epoch') == EPOCH end

local function load(name)
  local flat = redis.call('HGETALL', key('s', name))
  if #flat == 0 then return nil end
  local meta = { name = name }
  for i = 1, #flat, 2 do meta[flat[i]] = flat[i + 1] end
  return meta
end

-- How many there are is a part of it for nodes of a version that did not count changes.
local function globs_version()
  return (redis.call('GET', P .. 'globs:version') or '0') .. ':' .. text(redis.call('HLEN', P .. 'globs'))
end

-- A subscription that rests (`1`) is called for when one of its streams has more, once (`2` from then on); when it has less, one
-- that is at work (`0`), too: its work may be gone.
-- `! ! id` tells all nodes that there is something to look at, and one of them takes it: once is enough for all of them.
local function rouse(name, has_more)
  local called
  for _, id in ipairs(redis.call('SMEMBERS', key('w', name))) do
    local rests = redis.call('HGET', key('u', id), 'rests')
    if rests then redis.call('SADD', key('q', id), name) end
    if rests == '1' then redis.call('HSET', key('u', id), 'rests', '2') end
    if rests == '1' or rests and not has_more then
      redis.call('ZADD', P .. 'wakes', 'LT', text(NOW), id)
      called = id
    end
  end
  if called then redis.call('PUBLISH', P .. EPOCH .. ':wake', '! ! ' .. called) end
end

-- Wakes whoever follows: `tail closed name`, or `- - name` of one that is gone or hidden.
-- `watched` is set once a subscription has it, so that nobody else pays for those.
local function tell(meta, tail, closed)
  redis.call('PUBLISH', P .. EPOCH .. ':wake', (tail or '-') .. ' ' .. (closed or '-') .. ' ' .. meta.name)
  if meta.watched then rouse(meta.name, tail) end
end

-- All of it goes, and the sources that only it has kept.
local function bury(meta)
  while meta do
    redis.call('DEL', key('s', meta.name), key('l', meta.name), key('p', meta.name))
    redis.call('ZREM', P .. 'due', meta.name)
    redis.call('DECR', P .. 'count')
    if meta.answer then redis.call('DEL', key('a', meta.answer)) end
    if meta.node then redis.call('SREM', key('g', meta.node), meta.name) end
    tell(meta)
    local source = meta.base and load(meta.base)
    meta = nil
    if source then
      local left = redis.call('HINCRBY', key('s', source.name), 'forks', -1)
      if left <= 0 and source.presence == 'h' then meta = source end
    end
  end
end

local function drop(meta)
  if tonumber(meta.forks) > 0 then
    redis.call('HSET', key('s', meta.name), 'presence', 'h')
    redis.call('ZREM', P .. 'due', meta.name)
    tell(meta)
  else
    bury(meta)
  end
end

local function over_at(meta)
  if meta.ttl then return tonumber(meta.used) + tonumber(meta.ttl) * 1000 end
  if meta['until'] then return tonumber(meta['until']) end
end

-- Writes what may be left out when Redis has no memory: whatever else is asked for is done all the same.
local function try(...)
  local done = redis.pcall(...)
  return type(done) ~= 'table' or not done.err
end

-- The key of its log is gone, evicted or deleted: what it held is lost, so the stream goes on from its end in another epoch,
-- and whoever reads it is told.
local function find_lost(meta)
  if tonumber(meta.tail) <= tonumber(meta.start) or redis.call('EXISTS', key('l', meta.name)) == 1 then return end
  local places = text(redis.call('INCR', P .. 'ids')) .. ' ' .. text(NOW)
  meta.epoch = string.sub(redis.sha1hex(meta.epoch .. ' ' .. places), 1, 16)
  meta.start, meta.lost = meta.tail, redis.call('GET', P .. 'order') or '0'
  redis.call('HSET', key('s', meta.name), 'epoch', meta.epoch, 'start', meta.start, 'lost', meta.lost)
  tell(meta)
end

-- A stream as it is now: what is over has ended.
local function find(name, now)
  local meta = load(name)
  if meta then find_lost(meta) end
  if meta and meta.presence == 'p' then
    local at = over_at(meta)
    if at and at <= now then
      drop(meta)
      meta = load(name)
    end
  end
  return meta
end

local function field(entry, name)
  for i = 1, #entry[2], 2 do
    if entry[2][i] == name then return entry[2][i + 1] end
  end
end

local function oldest(name)
  return redis.call('XRANGE', key('l', name), '-', '+', 'COUNT', 1)[1]
end

-- When to look at it again: it will be over, or its oldest record will be too old.
local function schedule(meta, keep_ms)
  local at = over_at(meta)
  if keep_ms > 0 then
    local first = oldest(meta.name)
    local aged = first and tonumber(field(first, 't')) + keep_ms
    if aged and (not at or aged < at) then at = aged end
  end
  if at then redis.call('ZADD', P .. 'due', text(at), meta.name) end
end

-- Gives up what is older or more than is kept; at most so many records at a time.
local function trim(meta, now, keep_bytes, keep_records, keep_ms)
  local log = key('l', meta.name)
  local start, left = tonumber(meta.start), 1000
  while left > 0 do
    local first = oldest(meta.name)
    if not first then break end
    local is_over = keep_bytes > 0 and tonumber(meta.tail) - start > keep_bytes
      or keep_records > 0 and redis.call('XLEN', log) > keep_records
      or keep_ms > 0 and tonumber(field(first, 't')) + keep_ms < now
    if not is_over then break end
    redis.call('XDEL', log, first[1])
    start = tonumber(string.match(first[1], '^%d+'))
    meta.lost, left = field(first, 'o'), left - 1
  end
  if start > tonumber(meta.start) then
    meta.start = text(start)
    redis.call('HSET', key('s', meta.name), 'start', meta.start, 'lost', meta.lost)
  end
end

-- Puts bytes at the end; `extra` are further fields of the entry.
local function put(meta, bytes, now, extra)
  local order = text(redis.call('INCR', P .. 'order'))
  if #bytes > 0 then
    meta.tail = text(tonumber(meta.tail) + #bytes)
    redis.call('XADD', key('l', meta.name), meta.tail .. '-0', 'b', bytes, 'o', order, 't', text(now), unpack(extra))
  end
  return order
end

-- What comes of an append: old records go, and it is told.
local function follow_up(meta, keep_bytes, keep_records, keep_ms)
  trim(meta, NOW, keep_bytes, keep_records, keep_ms)
  if meta.ttl or keep_ms > 0 and not redis.call('ZSCORE', P .. 'due', meta.name) then schedule(meta, keep_ms) end
  tell(meta, meta.tail, meta.closed or '0')
end

-- Whether a stream of this owner, shared or not, is open to the key of that name; see access.rs.
local function is_open(owner, shared, who) return not owner or owner == who or shared == '1' end

-- The key whose subscription it is.
local function key_of(id) return redis.call('HGET', key('u', id), 'key') or '' end

-- A stream as subscriptions of the key `who` see it, if they do.
local function extent(name, who)
  local it = redis.call(
    'HMGET', key('s', name), 'id', 'epoch', 'start', 'tail', 'presence', 'owner', 'ttl', 'used', 'until', 'shared'
  )
  if it[5] ~= 'p' or not is_open(it[6], it[10], who) then return nil end
  local at = over_at({ ttl = it[7], used = it[8], ['until'] = it[9] })
  if at and at <= NOW then return nil end
  return { id = it[1], epoch = it[2], start = it[3], tail = it[4] }
end

-- Whether a subscription has nothing to do for a stream, and nothing to note. A link is `FLAGS`, or `FLAGS NUMBER OFFSET`: `e` if
-- a client has named the stream, `g` if the pattern has found it; the stream that was there, and how far that was processed.
local function is_done(link, it)
  local flags, id, epoch, position = string.match(link, '^(%a+) ?(%d*) ?(%x*)%-?(%d*)$')
  if not it then return id == '' and string.find(flags, 'e', 1, true) ~= nil end
  return id == it.id and epoch == it.epoch and tonumber(position) == tonumber(it.tail)
end

if not is_current() then return { 'epoch' } end
NOW = clock()
