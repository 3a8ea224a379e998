"""The scripts that run in the server. Each is atomic: a reader gets all of its writes or none."""

from __future__ import annotations

from typing import Final

WRITE: Final = """#!lua
local function newer(held, ours)
  for i = 1, 3 do
    local theirs = tonumber(held[i]) or -math.huge
    if ours[i] < theirs then return i == 3 and 'stale' or 'superseded' end
    if ours[i] > theirs then return 'landed' end
  end
  return 'same'
end
local function is(held, base)
  for i = 1, 3 do if tonumber(held[i]) ~= base[i] then return false end end
  return true
end
local kinds, usual, rows = unpack(cmsgpack.unpack(ARGV[#ARGV]))
local call, n = redis.call, #rows / 3
local held, outcomes, landed, model = {}, {}, 0, nil
-- All reads come before the first write: a key of another type must leave no row half made.
local new = call('EXISTS', unpack(KEYS, 1, n)) == 0
for k = new and n + 1 or 1, #KEYS do held[k] = call('HMGET', KEYS[k], 'generation', 'fence', 'rev') end
if #KEYS > n then
  -- The last key covers the rows. Without it, or with an older one, nobody would know what they count.
  local outcome = newer(held[#KEYS], {tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])})
  if outcome == 'landed' or outcome == 'superseded' then
    for k = 1, n do outcomes[k] = outcome == 'landed' and 'uncovered' or outcome end
    return outcomes
  end
end
for k = 1, n do
  local key, fields, gone = KEYS[k], rows[3 * k - 1], rows[3 * k]
  local version, ttl_ms, base = unpack(kinds[rows[3 * k - 2]])
  local outcome = new and 'landed' or newer(held[k], version)
  if outcome == 'landed' then
    if base == 'usual' and model then
      -- A copy, with its time to live, costs a third of the search for each field's place in the hash.
      call('COPY', model, key, 'REPLACE')
      ttl_ms = nil
    elseif base == 'usual' or base == 'none' then
      call('DEL', key)
      if base == 'usual' then
        call('HSET', key, unpack(usual))
        model = key
      end
    elseif new or not is(held[k], base) then
      outcome = 'unbased'
    end
  end
  if outcome == 'landed' then
    landed = landed + 1
    -- Numbers as they are: the server writes integers to 2^53 exactly; tostring() would round to 14 digits.
    if fields ~= 0 then call('HSET', key, unpack(fields)) end
    if gone ~= 0 then call('HDEL', key, unpack(gone)) end
    if ttl_ms == 0 then call('PERSIST', key) elseif ttl_ms then call('PEXPIRE', key, ttl_ms) end
  end
  outcomes[k] = outcome
end
return landed == n and 'landed' or outcomes
"""

DROP: Final = """#!lua
local held = redis.call('HMGET', KEYS[1], 'generation', 'fence', 'rev')
for i = 1, 3 do
  local ours, theirs = tonumber(ARGV[i]), tonumber(held[i]) or -math.huge
  if ours < theirs then return 0 end
  if ours > theirs then break end
end
return redis.call('DEL', KEYS[1])
"""

UNLIST: Final = """#!lua
for i = 1, #ARGV, 2 do
  local member, score = ARGV[i], redis.call('ZSCORE', KEYS[1], ARGV[i])
  local row = KEYS[(i + 3) / 2]
  if score and tonumber(score) <= tonumber(ARGV[i + 1]) and not (row and redis.call('EXISTS', row) == 1) then
    redis.call('ZREM', KEYS[1], member)
  end
end
return 1
"""

CLAIM: Final = """#!lua
local held = redis.call('HMGET', KEYS[1], 'generation', 'fence')
local newer = false
for i = 1, 2 do
  local ours, theirs = tonumber(ARGV[i]), tonumber(held[i]) or -math.huge
  if ours < theirs then return false end
  if ours > theirs then
    newer = true
    if i == 1 then redis.call('DEL', KEYS[1]) end
    break
  end
end
if newer then redis.call('HSET', KEYS[1], 'generation', ARGV[1], 'fence', ARGV[2], 'rev', -1) end
return redis.call('HGETALL', KEYS[1])
"""

TAKE: Final = """#!lua
local taken = redis.call('INCR', KEYS[1])
if taken <= tonumber(ARGV[1]) then
  taken = tonumber(ARGV[1]) + 1
  redis.call('SET', KEYS[1], taken)
end
return taken
"""

RAISE: Final = """#!lua
local held = tonumber(redis.call('GET', KEYS[1])) or 0
if held < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1]) end
return 1
"""

PUT_IN_OLDER: Final = """#!lua
local held = redis.call('HGET', KEYS[1], 'generation')
if not held or tonumber(held) >= tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
return 1
"""

PUT: Final = """#!lua
local ttl_ms, done, at = ARGV[1], 0, 3
for keys in string.gmatch(ARGV[2], '%d+') do
  for i = done + 1, done + tonumber(keys) do
    redis.call('HSET', KEYS[i], ARGV[at], ARGV[at + 1])
    if ttl_ms ~= '' then redis.call('PEXPIRE', KEYS[i], ttl_ms) end
  end
  done, at = done + tonumber(keys), at + 2
end
return done
"""
