-- Ends a stream. ARGV: name, number.
local meta = find(ARGV[2], NOW)
if not meta or meta.id ~= ARGV[3] or meta.presence ~= 'p' then return { 'gone' } end
drop(meta)
return { 'ok' }
