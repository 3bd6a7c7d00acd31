-- What there is of a stream beyond what the caller knows.
-- ARGV: name, the number of the stream that it knows, how far, whether it is being used, age in ms that is kept.
local name, id, known, used, keep_ms = unpack(ARGV, 2, 6)
local BYTES_MAX = 1048576

local meta = find(name, NOW)
if not meta then return { 'missing' } end
if used == '1' and meta.ttl then
  meta.used = text(NOW)
  redis.call('HSET', key('s', name), 'used', meta.used)
  if meta.presence == 'p' then schedule(meta, tonumber(keep_ms)) end
end
local from = tonumber(meta.start)
if id == meta.id then from = math.max(from, tonumber(known)) end
local entries, size, more = {}, 0, '0'
while from < tonumber(meta.tail) do
  if size >= BYTES_MAX then
    more = '1'
    break
  end
  local part = redis.call('XRANGE', key('l', name), text(from + 1) .. '-0', '+', 'COUNT', 16)
  if #part == 0 then break end
  for _, entry in ipairs(part) do
    entries[#entries + 1] = entry
    from = tonumber(string.match(entry[1], '^%d+'))
    size = size + #field(entry, 'b')
  end
end
return {
  'stream', redis.call('HGETALL', key('s', name)), entries, more, redis.call('GET', P .. 'order') or '0',
}
