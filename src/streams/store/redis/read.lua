-- What there is of a stream beyond what the caller knows.
-- ARGV: name, number and epoch of the stream that it knows (number 0 is none), how far, place and time of the last record that it
-- knows, whether it is being used, age in ms that is kept, an epoch for the log if what is known is lost.
local name, id, epoch, known, order, at, used, keep_ms, another = unpack(ARGV, 2, 10)
local BYTES_MAX = 1048576

local meta = find(name, NOW)
if not meta then return { 'missing' } end

-- Whether the caller was told something that is not there any more, or is something else now: a crash of Redis or a replica
-- that was behind has cut the log.
local function is_lost()
  if tonumber(meta.tail) < tonumber(known) then return true end
  if order == '0' or tonumber(known) <= tonumber(meta.start) then return false end
  local last = redis.call('XRANGE', key('l', name), known .. '-0', known .. '-0')[1]
  return not last or field(last, 'o') ~= order or field(last, 't') ~= at
end

if id ~= '0' then
  if id ~= meta.id or epoch ~= meta.epoch then return { 'other' } end
  if is_lost() then
    redis.call('HSET', key('s', name), 'epoch', another)
    tell(meta)
    return { 'other' }
  end
end
if used == '1' and meta.ttl then
  meta.used = text(NOW)
  -- It can be read when nothing more can be written.
  if try('HSET', key('s', name), 'used', meta.used) and meta.presence == 'p' then schedule(meta, tonumber(keep_ms)) end
end
local from = tonumber(meta.start)
if id ~= '0' then from = math.max(from, tonumber(known)) end
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
