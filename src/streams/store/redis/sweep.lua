-- Says that a node is alive, ends what is over, gives up what is too old, and ends the answers of nodes that have died.
-- ARGV: node, when a silent node counts as dead in ms, the event that ends an answer that was cut, bytes, records and age in
-- ms that are kept.
local node, silence, interrupted = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local keep_bytes, keep_records, keep_ms = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local AT_ONCE = 100

-- Whoever has not been able to hear of the others for a while cannot say that they are silent: Redis was away, not they.
local last = tonumber(redis.call('ZSCORE', P .. 'nodes', node) or '0')
local since = tonumber(redis.call('HGET', P .. 'since', node) or text(NOW))
if NOW - last > silence / 2 then since = NOW end
-- What is over goes even when there is no memory to write this down: it is what makes room.
try('HSET', P .. 'since', node, text(since))
try('ZADD', P .. 'nodes', text(NOW), node)
for _, name in ipairs(redis.call('ZRANGEBYSCORE', P .. 'due', '-inf', text(NOW), 'LIMIT', 0, AT_ONCE)) do
  redis.call('ZREM', P .. 'due', name)
  local meta = find(name, NOW)
  if meta and meta.presence == 'p' then
    trim(meta, NOW, keep_bytes, keep_records, keep_ms)
    schedule(meta, keep_ms)
  end
end
local cut = 0
local silent = NOW - since > silence and redis.call('ZRANGEBYSCORE', P .. 'nodes', '-inf', text(NOW - silence)) or {}
for _, dead in ipairs(silent) do
  for _, name in ipairs(redis.call('SPOP', key('g', dead), AT_ONCE)) do
    local meta = find(name, NOW)
    if meta and meta.node == dead and meta.closed ~= '1' then
      put(meta, interrupted, NOW, {})
      redis.call('HSET', key('s', name), 'tail', meta.tail, 'closed', '1')
      tell(meta, meta.tail, '1')
      cut = cut + 1
    end
  end
  if redis.call('EXISTS', key('g', dead)) == 0 then
    redis.call('ZREM', P .. 'nodes', dead)
    redis.call('HDEL', P .. 'since', dead)
  end
end
return { 'ok', text(cut) }
