"""The scripts of the online store, each run on the server that holds its keys.

Redis takes nothing back of a script that errs in the middle: a key of another type, a command that the user may not
run, a key that is moving to another node. COMMIT therefore cuts off what it has appended when anything fails, so that
an error applies nothing that counts. (Bodies may have been set and their heads deleted by then: that is a compaction
of what was there, and changes no value.)

A head that begins beside a body is marked, and so is the body (see `wire.codecs.body`): each then knows of the other.
A head that begins beside a body that is marked already stands for one that was lost, and stays unmarked: readers refuse
the pair.
The marks are a byte each, set once for every head, which lives for some fifty events.

Where there are packs, what is appended comes as records (see `wire.codecs.pack`), those of a pack in one piece: the
rows of each entity, behind what says whose they are. They go to its head where it has a head or a body, and otherwise
the record goes to the head of its pack. Mostly nobody of a pack has keys of its own, which one command tells, and
another one appends all. Head and body of a pack are marked, and live, like those of an entity. An entity is in its pack
or has keys of its own, never both: only a compaction lets it leave, and sets its body and the pack's in one step.

Heads and bodies get an eighth more than they are to live, and are looked at with every append: they are given it anew
only once they have less left than they are to live from now. Head and body always go together.

What stands in ARGV and KEYS is laid out beside the Python that fills it, in `store`.
"""

from __future__ import annotations

import hashlib

COMMIT = """
local checkpoint = redis.call('GET', KEYS[1]) or ''
if checkpoint ~= ARGV[1] then return checkpoint end
local expire = tonumber(ARGV[3])
local granted = expire + math.floor(expire / 8)
local report = tonumber(ARGV[4])
local bodies, appends, ids, deletions = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local k, a = 2, 15
for _ = 1, bodies do
  if #ARGV[a] == 0 then
    redis.call('DEL', KEYS[k], KEYS[k + 1])
  else
    if expire > 0 then redis.call('SET', KEYS[k], ARGV[a], 'PX', granted) else redis.call('SET', KEYS[k], ARGV[a]) end
    redis.call('DEL', KEYS[k + 1])
  end
  k, a = k + 2, a + 1
end
local packs = tonumber(ARGV[14])
local touched, sizes, added, marked, failure = {}, {}, {}, {}, nil
local function run(...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err then failure = failure or reply end
  return reply
end
local function number_of(...)
  local reply = run(...)
  return type(reply) == 'number' and reply or 0
end
local function take_back()
  for i = #sizes, 1, -1 do
    local key, before = touched[i], sizes[i] - added[i]
    if before == 0 then
      redis.call('DEL', key)
    else
      redis.call('SET', key, redis.call('GETRANGE', key, 0, before - 1), 'KEEPTTL')
    end
  end
  for _, body in ipairs(marked) do redis.pcall('SETRANGE', body, 0, '\\251') end
  return failure
end
local function length_at(record, at)
  local value, worth, byte = 0, 1, 128
  while byte >= 128 do
    byte = string.byte(record, at)
    value, worth, at = value + byte % 128 * worth, worth * 128, at + 1
  end
  return value, at
end
local long = {}
local function append(key, body, data, long_from, index)
  local size = run('APPEND', key, data)
  if failure then return end
  local i = #sizes + 1
  touched[i], sizes[i], added[i] = key, size, #data
  if not body then return end
  if size >= long_from then long[#long + 1] = index end
  if size == #data and run('GETRANGE', body, 0, 0) == '\\251' then
    run('SETRANGE', key, 0, string.char((string.byte(data) + 128) % 256))
    marked[#marked + 1] = body
    run('SETRANGE', body, 0, '\\4')
  end
  if expire > 0 and (size == #data or number_of('PTTL', key) < expire) then
    run('PEXPIRE', key, granted)
    run('PEXPIRE', body, granted)
  end
end
local function append_own(records, own, first)
  local at, rest = 1, {}
  for i = 1, #own, 2 do
    local key_bytes, lengths_at = length_at(records, at + 1)
    local row_bytes, key_at = length_at(records, lengths_at)
    local rows_at = key_at + key_bytes
    if #own == 2 or number_of('EXISTS', own[i], own[i + 1]) > 0 then
      append(own[i], own[i + 1], string.sub(records, rows_at, rows_at + row_bytes - 1), report, first + (i - 1) / 2)
      if failure then return '' end
    else
      rest[#rest + 1] = string.sub(records, at, rows_at + row_bytes - 1)
    end
    at = rows_at + row_bytes
  end
  return table.concat(rest)
end
local first = 0
for p = 1, packs do
  local name, records, members, own = ARGV[a], ARGV[a + 1], tonumber(ARGV[a + 2]), {}
  for i = 1, members do
    own[2 * i - 1], own[2 * i] = ARGV[9] .. ARGV[a + 2 + i], ARGV[10] .. ARGV[a + 2 + i]
  end
  if number_of('EXISTS', unpack(own)) > 0 then records = append_own(records, own, first) end
  if not failure and #records > 0 then append(ARGV[11] .. name, ARGV[12] .. name, records, tonumber(ARGV[13]), -p) end
  if failure then return take_back() end
  a, first = a + 3 + members, first + members
end
for i = 1, appends do
  append(KEYS[k], ARGV[10] .. string.sub(KEYS[k], #ARGV[9] + 1), ARGV[a], report, i - 1)
  if failure then return take_back() end
  k, a = k + 1, a + 1
end
for _ = 1, ids do
  append(KEYS[k], nil, ARGV[a])
  if failure then return take_back() end
  k, a = k + 1, a + 1
end
for _ = 1, deletions do
  run('DEL', KEYS[k])
  k = k + 1
end
if ARGV[2] ~= ARGV[1] then run('SET', KEYS[1], ARGV[2]) end
if failure then return take_back() end
return long
"""

COMPARE_AND_SET = """
local found = redis.call('GET', KEYS[1])
if (ARGV[1] == '0' and found) or (ARGV[1] == '1' and found ~= ARGV[2]) then return 0 end
redis.call('SET', KEYS[1], ARGV[3])
return 1
"""

# The second key says which changes the hash has been through: who knows them need not read it again.
COMPARE_AND_SET_FIELD = """
local found = redis.call('HGET', KEYS[1], ARGV[4])
if (ARGV[1] == '0' and found) or (ARGV[1] == '1' and found ~= ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[4], ARGV[3])
redis.call('SET', KEYS[2], redis.sha1hex((redis.call('GET', KEYS[2]) or '') .. ARGV[4] .. ARGV[3]))
return 1
"""

# Event times are compared byte by byte from the most significant one, whose sign bit is flipped: Lua numbers would
# round beyond 2**53, and Lua compares strings by the server's locale.
WRITE_NEWER = """
local found = redis.call('GETRANGE', KEYS[1], 0, 7)
if #found == 8 then
  for i = 8, 1, -1 do
    local old, new = string.byte(found, i), string.byte(ARGV[1], i)
    if i == 8 then old, new = (old + 128) % 256, (new + 128) % 256 end
    if old > new then return 0 end
    if old < new then break end
  end
end
if tonumber(ARGV[2]) > 0 then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
else
  redis.call('SET', KEYS[1], ARGV[1])
end
return 1
"""

SHA1: dict[str, str] = {
    script: hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
    for script in (COMMIT, COMPARE_AND_SET, COMPARE_AND_SET_FIELD, WRITE_NEWER)
}
"""Names under which servers cache the scripts."""
