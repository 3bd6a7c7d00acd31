-- Takes subscriptions that are to be looked at. Should whoever takes one die before it has looked, it is due again.
-- ARGV: how many at most, after how many ms it is due again.
-- Answers in how many ms the next one is due, how many there are, how often one that was full has missed a stream, and those taken.
local taken = redis.call('ZRANGEBYSCORE', P .. 'wakes', '-inf', text(NOW), 'LIMIT', 0, tonumber(ARGV[2]))
for _, id in ipairs(taken) do
  redis.call('ZADD', P .. 'wakes', text(NOW + tonumber(ARGV[3])), id)
end
local first = redis.call('ZRANGE', P .. 'wakes', 0, 0, 'WITHSCORES')
local wait = ''
if first[2] and first[2] ~= 'inf' then wait = text(math.max(tonumber(first[2]) - NOW, 0)) end
return { 'ok', wait, text(redis.call('ZCARD', P .. 'wakes')), redis.call('GET', P .. 'left') or '0', taken }
