-- Answers questions about meters, each a hash: full_at and interval (microseconds), and for each node with a batch at hand
-- "<permits> <good until>". The generic cell rate algorithm, on the clock that all nodes share: this server's.
--
-- KEYS: the mark of this memory, then a meter for each question.
-- ARGV: the mark as the node knows it, the node, 1 if all of the questions or none are to be granted, the number of nodes,
-- the time if a test sets it; then for each question: interval, burst, permits held, permits wanted, how long they are good,
-- what is owed if nothing is remembered here, what the node has used on its own.
-- Returns for each question: permits granted, debt in microseconds. Nothing at all: the memory is another.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return {}
end
local clock = redis.call('TIME')
local now = tonumber(ARGV[5]) or (clock[1] * 1000000 + clock[2])
local node, together, nodes = ARGV[2], ARGV[3] == '1', tonumber(ARGV[4])
-- The bound is 1.05 times the burst; so much of it may be out in batches while the burst is there as well.
local SLACK = 0.04

local questions = {}
local all = true
for i = 2, #KEYS do
  local at = 6 + (i - 2) * 7
  local q = {
    key = KEYS[i], interval = tonumber(ARGV[at]), burst = tonumber(ARGV[at + 1]), held = tonumber(ARGV[at + 2]),
    want = tonumber(ARGV[at + 3]), good_for = tonumber(ARGV[at + 4]), gone = {},
  }
  local owed, own = tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6])
  local full_at, was, out = 0, q.interval, q.held
  local fields = redis.call('HGETALL', q.key)
  for j = 1, #fields, 2 do
    local name, value = fields[j], fields[j + 1]
    if name == 'full_at' then
      full_at = tonumber(value)
    elseif name == 'interval' then
      was = tonumber(value)
    elseif name ~= node then
      local permits, good_until = string.match(value, '^(%d+) (%d+)$')
      if tonumber(good_until) > now then
        out = out + tonumber(permits)
      else
        table.insert(q.gone, name)
      end
    end
  end
  -- A plan that changed leaves as many requests owed as before.
  local debt = math.max(full_at - now, 0) * q.interval / was
  debt = math.max(debt, owed) + own
  -- Permits that are out must not be here as well: whoever had both could use twice the burst at once.
  debt = math.max(debt, (out - SLACK * q.burst) * q.interval)
  q.debt = math.min(debt, q.burst * q.interval)
  local free = math.floor(q.burst - q.debt / q.interval + 0.000001)
  q.give = q.want - q.held
  if q.give > 0 then
    -- Near the end each node gets its part of what is there.
    q.give = math.min(q.give, free, math.max(1, math.ceil(free / nodes)))
    all = all and q.give > 0
  end
  table.insert(questions, q)
end

local answers = {}
for _, q in ipairs(questions) do
  if together and not all then
    q.give = 0
  end
  local debt = math.max(0, q.debt + q.give * q.interval)
  redis.call('HSET', q.key, 'full_at', string.format('%.3f', now + debt), 'interval', string.format('%.6f', q.interval))
  if q.good_for > 0 then
    if q.held + q.give > 0 then
      redis.call('HSET', q.key, node, string.format('%d %.0f', q.held + q.give, now + q.good_for))
    else
      redis.call('HDEL', q.key, node)
    end
  end
  if #q.gone > 0 then
    redis.call('HDEL', q.key, unpack(q.gone))
  end
  -- What is as if it were full need not be remembered.
  redis.call('PEXPIRE', q.key, string.format('%.0f', math.min(math.ceil(debt / 1000) + 2000, 1e13)))
  table.insert(answers, math.max(0, q.give))
  table.insert(answers, math.ceil(debt))
end
return answers
