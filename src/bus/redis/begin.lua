-- Begins a fresh epoch on a stream, unless another node did so since this one looked.
-- KEYS: events, epochs. ARGV: the epochs as this node saw them, the part of them that is kept, the fresh epoch,
-- the least time of the entry in ms, then its fields.
local events, epochs = KEYS[1], KEYS[2]
if redis.call('GET', epochs) ~= ARGV[1] then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local id = '*'
local least = tonumber(ARGV[4])
if least > now and least < now + 86400000 then id = string.format('%.0f-0', least) end
local added = redis.pcall('XADD', events, id, unpack(ARGV, 5))
-- The stream may be ahead of that time already.
if type(added) == 'table' then added = redis.call('XADD', events, '*', unpack(ARGV, 5)) end
redis.call('SET', epochs, ARGV[2] .. ' ' .. ARGV[3] .. ':' .. added)
return 1
