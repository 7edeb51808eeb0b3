-- Says what is on the stream; begins one, with a new epoch, where there is none.
-- KEYS: events, epochs. ARGV: a fresh epoch, the id that the node has or '', the least time of a new entry in
-- ms, then the fields of an entry that begins the fresh epoch.
local events, epochs = KEYS[1], KEYS[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if redis.call('EXISTS', events) == 0 or redis.call('EXISTS', epochs) == 0 then
  local id = '*'
  -- Later than what any node has read: else their tails would wait for a clock that went back.
  local least = tonumber(ARGV[3])
  if redis.call('EXISTS', events) == 0 and least > now and least < now + 86400000 then
    id = string.format('%.0f-0', least)
  end
  id = redis.call('XADD', events, id, unpack(ARGV, 4))
  redis.call('SET', epochs, ARGV[1] .. ':' .. id)
end
-- Removes nothing; a server that is too old refuses it, and so does a replica.
redis.call('XTRIM', events, 'MINID', '~', '0-0')
local last = ''
local about = redis.call('XINFO', 'STREAM', events)
for at = 1, #about, 2 do
  if about[at] == 'last-generated-id' then last = about[at + 1] end
end
local oldest = redis.call('XRANGE', events, '-', '+', 'COUNT', 1)
local first = ''
if oldest[1] then first = oldest[1][1] end
local known = 0
if ARGV[2] ~= '' then known = #redis.call('XRANGE', events, ARGV[2], ARGV[2], 'COUNT', 1) end
return { redis.call('GET', epochs), first, last, known, string.format('%.0f', now) }
