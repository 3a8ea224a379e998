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
local usual, rows = unpack(cmsgpack.unpack(ARGV[#ARGV]))
local held, outcomes, ttls, model = {}, {}, {}, nil
-- All reads come before the first write: a key of another type must leave no row half made.
local new = redis.call('EXISTS', unpack(KEYS, 1, #rows)) == 0
for k, key in ipairs(KEYS) do
  held[k] = new and k <= #rows and {} or redis.call('HMGET', key, 'generation', 'fence', 'rev')
end
if #KEYS > #rows then
  -- The last key covers the rows. Without it, or with an older one, nobody would know what they count.
  local outcome = newer(held[#KEYS], {tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])})
  if outcome == 'landed' or outcome == 'superseded' then
    for k = 1, #rows do outcomes[k] = outcome == 'landed' and 'uncovered' or outcome end
    return outcomes
  end
end
for k = 1, #rows do
  local key = KEYS[k]
  local version, ttl_ms, base = unpack(rows[k])
  local outcome = newer(held[k], version)
  ttls[k] = ttl_ms
  if outcome == 'landed' and base == 'usual' then
    -- A copy, which has the time to live too, costs a third of the search for each field's place in the hash.
    if model then
      redis.call('COPY', model, key, 'REPLACE')
      ttls[k] = nil
    else
      redis.call('DEL', key)
      redis.call('HSET', key, unpack(usual))
      if ttl_ms > 0 then redis.call('PEXPIRE', key, ttl_ms) end
      model, ttls[k] = key, nil
    end
  elseif outcome == 'landed' and base == 'none' then
    redis.call('DEL', key)
  elseif outcome == 'landed' and not is(held[k], base) then
    outcome = 'unbased'
  end
  outcomes[k] = outcome
end
for k = 1, #rows do
  if outcomes[k] == 'landed' then
    local key = KEYS[k]
    local _, _, _, fields, gone = unpack(rows[k])
    -- Numbers as they are: the server writes integers to 2^53 exactly; tostring() would round to 14 digits.
    if #fields > 0 then redis.call('HSET', key, unpack(fields)) end
    if #gone > 0 then redis.call('HDEL', key, unpack(gone)) end
    local ttl_ms = ttls[k]
    if ttl_ms == 0 then redis.call('PERSIST', key) elseif ttl_ms then redis.call('PEXPIRE', key, ttl_ms) end
  end
end
return outcomes
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

CLOCK: Final = """#!lua
local now = redis.call('TIME')
return {now[1], now[2], redis.call('HGET', KEYS[1], ARGV[1])}
"""
