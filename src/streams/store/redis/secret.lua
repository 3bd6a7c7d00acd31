-- What the keys of subscriptions are made of, the same for all nodes. ARGV: what is taken if there is nothing yet.
redis.call('SET', P .. 'secret', ARGV[2], 'NX')
return { 'ok', redis.call('GET', P .. 'secret') }
