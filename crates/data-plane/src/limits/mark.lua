-- Marks this memory, unless it is marked already: a server that lost it has no mark, and gets another. And says how long to
-- wait until it can be believed: when it is new, or a node was away from it, some node may have used what it does not know of.
--
-- KEYS: where the mark is, and from when on it can be believed.
-- ARGV: a random number, 1 if the node was away, how long nodes need to come back and tell, the time if a test sets it.
-- Returns the mark, and the wait in microseconds.

local clock = redis.call('TIME')
local now = tonumber(ARGV[4]) or (clock[1] * 1000000 + clock[2])
local is_new = redis.call('SET', KEYS[1], ARGV[1], 'NX')
local from = tonumber(redis.call('GET', KEYS[2]) or 0)
-- Whoever comes back while others do waits with them, and not anew.
if is_new or (ARGV[2] == '1' and from <= now) then
  from = now + tonumber(ARGV[3])
  redis.call('SET', KEYS[2], string.format('%.0f', from))
end
return { redis.call('GET', KEYS[1]), math.ceil(math.max(0, from - now)) }
