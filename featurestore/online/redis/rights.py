"""What a user of the store must be allowed, and what of it is missing: asked once, when a writer connects.

Redis refuses a command when it is run, so a user who lacks three of them would be told of one, give it, and be told of
the next; and inside a script a refusal comes in the middle of a commit. So all are tried beforehand, on a key of the
project that goes at once.
"""

from __future__ import annotations

from featurestore.errors import OnlineStoreDown

TRY_ALL = """
local denied = {}
local function try(...)
  local reply = redis.pcall(...)
  local refusal = type(reply) == 'table' and reply.err or ''
  for _, text in ipairs(ARGV) do
    if string.find(refusal, text, 1, true) then denied[#denied + 1] = string.lower(({...})[1]) end
  end
end
local key = KEYS[1]
try('SET', key, 'a')
try('GET', key)
try('APPEND', key, 'b')
try('EXISTS', key)
try('GETRANGE', key, 0, 0)
try('SETRANGE', key, 0, 'c')
try('PEXPIRE', key, 1000)
try('PTTL', key)
try('DEL', key)
try('HSET', key, 'field', 'd')
try('HGET', key, 'field')
try('PEXPIRE', key, 1000)
try('DEL', key)
return denied
"""
"""Inside of scripts; its arguments are what a refusal says."""

NEEDED_OUTSIDE: tuple[tuple[str, ...], ...] = (("GET",), ("MGET",), ("HGETALL",), ("HGET",), ("HLEN",))
"""Outside of them, each with a key behind it; tools also take SCAN, UNLINK, INFO and MEMORY USAGE."""


def refuse_missing(store_name: str, denied: list[str]) -> None:
    """Tell which commands are to be allowed, all at once.

    Raises:
        OnlineStoreDown: some are; retried like an outage, since rights may be in the middle of being given.
    """
    if denied:
        missing = sorted(set(denied))
        raise OnlineStoreDown(
            f"{store_name} does not let this user run: {', '.join(missing)}",
            hint=f"ACL SETUSER <user> {' '.join(f'+{name}' for name in missing)}",
        )
