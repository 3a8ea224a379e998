"""The scripts that run in the server: each is atomic, so a reader sees all that it writes or nothing."""

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
local usual, model = cmsgpack.unpack(ARGV[2]), nil
local rows, held, outcomes = {}, {}, {}
-- All reads come before the first write: a key of another type must leave no row half made.
for k, key in ipairs(KEYS) do
  held[k] = redis.call('HMGET', key, 'generation', 'fence', 'rev')
end
for k, key in ipairs(KEYS) do
  local row = cmsgpack.unpack(ARGV[k + 2])
  local outcome = newer(held[k], row.version)
  if outcome == 'landed' and row.base == 'usual' then
    -- A copy costs a third of the search for each field's place in the hash.
    if model then
      redis.call('COPY', model, key, 'REPLACE')
    else
      redis.call('DEL', key)
      redis.call('HSET', key, unpack(usual))
      model = key
    end
  elseif outcome == 'landed' and row.base == 'none' then
    redis.call('DEL', key)
  elseif outcome == 'landed' and not is(held[k], row.base) then
    outcome = 'unbased'
  end
  rows[k], outcomes[k] = row, outcome
end
for k, key in ipairs(KEYS) do
  if outcomes[k] == 'landed' then
    local row = rows[k]
    local generation, fence, rev = unpack(row.version)
    -- Numbers as they are: the server writes integers to 2^53 exactly; tostring() would round to 14 digits.
    redis.call('HSET', key, 'generation', generation, 'fence', fence, 'rev', rev, 'updated_ms', ARGV[1],
      unpack(row.fields))
    if #row.gone > 0 then redis.call('HDEL', key, unpack(row.gone)) end
    if row.ttl_ms then redis.call('PEXPIRE', key, row.ttl_ms) else redis.call('PERSIST', key) end
  end
end
return outcomes
"""

DROP: Final = """#!lua
local held = redis.call('HMGET', KEYS[1], 'generation', 'fence')
for i = 1, 2 do
  local ours, theirs = tonumber(ARGV[i]), tonumber(held[i]) or -math.huge
  if ours < theirs then return 0 end
  if ours > theirs then break end
end
return redis.call('DEL', KEYS[1])
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

PUT: Final = """#!lua
for i, key in ipairs(KEYS) do
  redis.call('HSET', key, ARGV[2 * i], ARGV[2 * i + 1])
  if ARGV[1] ~= '' then redis.call('PEXPIRE', key, ARGV[1]) end
end
return #KEYS
"""

CLOCK: Final = """#!lua
local now = redis.call('TIME')
return {now[1], now[2], redis.call('HGET', KEYS[1], ARGV[1])}
"""
