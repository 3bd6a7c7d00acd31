-- The patterns of all subscriptions, and their version.
return { 'ok', globs_version(), redis.call('HGETALL', P .. 'globs') }
