-- Appends, closes, or both, if nothing stands against it, and judges in the protocol's order (PROTOCOL.md, 5.2 and 5.2.1).
-- ARGV: name, number, bytes, ends, event, content type is the stream's, producer, its epoch, its number, sequence word, close,
-- bound on producers, bytes, records and age in ms that are kept, whether it is sedge's own word.
local name, id, bytes, ends, event, fits = unpack(ARGV, 2, 7)
local producer, session, number, word, close = unpack(ARGV, 8, 12)
local max_producers, keep_bytes, keep_records, keep_ms =
  tonumber(ARGV[13]), tonumber(ARGV[14]), tonumber(ARGV[15]), tonumber(ARGV[16])
local own = ARGV[17] == '1'

-- Byte by byte: the order of Lua's strings is the locale's.
local function is_after(one, other)
  for i = 1, math.min(#one, #other) do
    local a, b = string.byte(one, i), string.byte(other, i)
    if a ~= b then return a > b end
  end
  return #one > #other
end

-- How long a producer that is not known any more may come again with what was appended already, in ms.
local DOUBT_MS = 86400000

local meta = find(name, NOW)

-- The producers were lost, evicted or deleted: `numbered` says that there were some, `doubted` since when they are missing.
local function doubts()
  if meta.numbered and redis.call('EXISTS', key('p', name)) == 0 then
    meta.doubted = text(NOW)
    redis.call('HSET', key('s', name), 'doubted', meta.doubted)
  end
  return meta.doubted and tonumber(meta.doubted) + DOUBT_MS > NOW
end

if not meta or meta.id ~= id or meta.presence ~= 'p' then return { 'gone' } end
-- A kept response, which has the node that makes it.
if meta.node and not own and #bytes > 0 then return { 'generated' } end
local verdict, last = 'accept', nil
if producer ~= '' then
  local known = redis.call('HGET', key('p', name), producer)
  local at, n = tonumber(session), tonumber(number)
  if not known and doubts() then
    if redis.call('HLEN', key('p', name)) >= max_producers then return { 'many' } end
    -- Whether this was appended before nobody knows any more: it has to begin a session that nobody has used.
    redis.call('HSET', key('p', name), producer, text(at + 1) .. ':-1')
    return { 'fenced', text(at + 1) }
  end
  if not known then
    if n > 0 then
      verdict, last = 'gap', 0
    elseif redis.call('HLEN', key('p', name)) >= max_producers then
      verdict = 'many'
    end
  else
    local epoch, seq = string.match(known, '^(%d+):(-?%d+)$')
    epoch, seq = tonumber(epoch), tonumber(seq)
    if at < epoch then return { 'fenced', text(epoch) } end
    if at > epoch then
      if n > 0 then verdict = 'start' end
    elseif n <= seq then
      verdict, last = 'duplicate', seq
    elseif n > seq + 1 then
      verdict, last = 'gap', seq + 1
    end
  end
end
local claim = producer ~= '' and session .. ':' .. number .. ':' .. producer or ''
if meta.closed == '1' then
  if claim ~= '' and meta.closer == claim then return { 'duplicate', number, meta.tail, '1' } end
  if close == '1' and #bytes == 0 and claim == '' then return { 'duplicate', '0', meta.tail, '1' } end
  return { 'closed', meta.tail }
end
if #bytes > 0 and fits ~= '1' then return { 'kind' } end
if verdict == 'duplicate' then return { 'duplicate', text(last), meta.tail, '0' } end
if verdict == 'gap' then return { 'gap', text(last) } end
if verdict ~= 'accept' then return { verdict } end
if word ~= '' and meta.seq and not is_after(word, meta.seq) then return { 'sequence' } end

local extra = {}
if ends ~= '' then extra = { 'e', ends } end
if event ~= '' then
  extra[#extra + 1] = 'n'
  extra[#extra + 1] = event
end
local before = meta.tail
local order = put(meta, bytes, NOW, extra)
local fields = { 'tail', meta.tail, 'used', text(NOW) }
local function set(what, value)
  meta[what] = value
  fields[#fields + 1] = what
  fields[#fields + 1] = value
end
meta.used = text(NOW)
if producer ~= '' then
  redis.call('HSET', key('p', name), producer, session .. ':' .. number)
  if not meta.numbered then set('numbered', '1') end
end
if word ~= '' then set('seq', word) end
if close == '1' then
  set('closed', '1')
  if claim ~= '' then set('closer', claim) end
  if meta.node then
    redis.call('SREM', key('g', meta.node), name)
    if not own then set('stopped', '1') end
  end
end
redis.call('HSET', key('s', name), unpack(fields))
follow_up(meta, keep_bytes, keep_records, keep_ms)
return { 'ok', before, meta.tail, order, text(NOW), meta.closed or '0', meta.start, meta.lost }
