-- What has become of a subscription is written down, if nobody else has done so since it was loaded.
-- ARGV: id, version that was loaded (none if it is new), head, whether it is idle, when something happens by itself (or
-- nothing), whether the streams of its pattern are found, pattern, wake stream, how long to wait if it has something to do, bound
-- on subscriptions, number of the wake stream if something is appended to it, bytes, ends, bytes, records and age in ms that are
-- kept, the key that it is made with if it is new, and then the links that have changed: path, link (none if it is gone).
--
-- The fields of a subscription: `version`; `head`, JSON, see record.rs; `rests`, see `rouse`; `filled`; `wake`.
local id, expected, head, idle, due, filled, glob, wake = unpack(ARGV, 2, 9)
local pause, max = tonumber(ARGV[10]), tonumber(ARGV[11])
local number, bytes, ends = unpack(ARGV, 12, 14)
local keep_bytes, keep_records, keep_ms = tonumber(ARGV[15]), tonumber(ARGV[16]), tonumber(ARGV[17])
-- One whose streams are still to be found is looked at again, lest whoever looks for them has died.
local FILL_MS = 5000

local this = key('u', id)
if (redis.call('HGET', this, 'version') or '') ~= expected then return { 'conflict' } end
if expected == '' and redis.call('ZCARD', P .. 'wakes') >= max then return { 'full' } end
local stream
if number ~= '' then
  stream = find(wake, NOW)
  if not stream or stream.id ~= number or stream.presence ~= 'p' or stream.closed == '1' then return { 'conflict' } end
end

redis.call(
  'HSET', this, 'version', text(redis.call('INCR', P .. 'versions')), 'head', head, 'filled', filled, 'wake', wake
)
if expected == '' and glob ~= '' then
  redis.call('HSET', P .. 'globs', id, glob .. '\n' .. wake)
  redis.call('INCR', P .. 'globs:version')
end
if expected == '' and ARGV[18] ~= '' then redis.call('HSET', this, 'key', ARGV[18]) end
local who = key_of(id)
for i = 19, #ARGV, 2 do
  local path, link = ARGV[i], ARGV[i + 1]
  if link == '' then
    redis.call('HDEL', key('k', id), path)
    redis.call('SREM', key('w', path), id)
    redis.call('SREM', key('q', id), path)
  else
    redis.call('HSET', key('k', id), path, link)
    redis.call('SADD', key('w', path), id)
    if redis.call('EXISTS', key('s', path)) == 1 then redis.call('HSET', key('s', path), 'watched', '1') end
    redis.call('SADD', key('q', id), path)
  end
end
local is_quiet = true
for _, path in ipairs(redis.call('SMEMBERS', key('q', id))) do
  local link = redis.call('HGET', key('k', id), path)
  if not link or is_done(link, extent(path, who)) then
    redis.call('SREM', key('q', id), path)
  else
    is_quiet = false
  end
end
local rests, at = '0', due ~= '' and tonumber(due) or nil
if idle == '1' then
  rests = '1'
  -- Something was appended since it was loaded.
  if not is_quiet then rests, at = '2', NOW + pause end
end
if filled ~= '1' then at = math.min(at or NOW + FILL_MS, NOW + FILL_MS) end
redis.call('HSET', this, 'rests', rests)
redis.call('ZADD', P .. 'wakes', at and text(at) or '+inf', id)
if stream then
  put(stream, bytes, NOW, ends ~= '' and { 'e', ends } or {})
  redis.call('HSET', key('s', wake), 'tail', stream.tail, 'used', text(NOW))
  stream.used = text(NOW)
  follow_up(stream, keep_bytes, keep_records, keep_ms)
end
return { 'ok', at and text(math.max(at - NOW, 0)) or '' }
