"""redis-py's errors as ours, in one place: the writer's connections and the readers' pipeline map alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import redis

from featurestore.errors import (
    CorruptData,
    DeadlineSpent,
    InvalidRequest,
    OnlineStoreDown,
    StoreFull,
    WrongKindOfKey,
    redacted,
)

# Answers of a server that is failing over or re-sharding: the same command may succeed later.
_TEMPORARY = (
    redis.exceptions.ReadOnlyError,
    # Also "TTL exhausted": redis-py was sent from node to node, or told to try again, too often.
    redis.exceptions.ClusterError,
    redis.exceptions.TryAgainError,
    redis.exceptions.SlotNotCoveredError,
)
_REFUSED = (
    redis.exceptions.AuthenticationError,
    redis.exceptions.AuthenticationWrongNumberOfArgsError,
    redis.exceptions.AuthorizationError,
    redis.exceptions.NoPermissionError,
)
_QUOTING = ", with args"
REFUSED_IN_SCRIPT = ("run this command", "ACL failure")
"""In what a script is told: "The user executing the script can't run this command" by Redis, "ACL failure in script" by
Valkey."""

_MOVING = "non local key"
"""In what a script is told whose keys are in a slot that is moving to another node, and not all there."""

STORE = "the online store"
"""What callers in other processes are told of it: no address."""

FULL_HINT = "give the store more memory, or drop what is not needed; whoever writes goes on by itself"

_BUSY = ("BUSY", "UNKILLABLE", "MISCONF", "NOREPLICAS")


@contextmanager
def redis_errors(store_name: str, *, has_deadline: bool = False) -> Iterator[None]:
    """Run a block whose errors are redis-py's or a socket's.

    Args:
        store_name: for messages, without passwords.
        has_deadline: a wait that ended without an answer is the caller's deadline, not an outage.

    Raises:
        OnlineStoreDown: the store does not answer, or not now.
        StoreFull: it has no memory left.
        DeadlineSpent: it did not within the deadline.
        WrongKindOfKey: a key holds something else than it should.
        CorruptData: it refused a command for another reason.
    """
    try:
        yield
    except redis.exceptions.TimeoutError as error:
        if has_deadline:
            raise DeadlineSpent(
                f"{store_name} did not answer within the deadline", public=f"{STORE} did not answer within the deadline"
            ) from error
        raise _down(store_name, error) from error
    except _REFUSED as error:
        raise _refusal(store_name, error) from error
    except redis.exceptions.OutOfMemoryError as error:
        public = f"{STORE} is full"
        raise StoreFull(f"{store_name} is full", detail=str(error), hint=FULL_HINT, public=public) from error
    except _TEMPORARY as error:
        raise _unready(store_name, error, "not ready") from error
    except (redis.exceptions.ResponseError, redis.exceptions.InvalidResponse) as error:
        if str(error).startswith(_BUSY):
            raise _unready(store_name, error, "busy") from error
        if _MOVING in str(error):
            raise _unready(store_name, error, "not ready") from error
        if any(text in str(error) for text in REFUSED_IN_SCRIPT):
            raise _refusal(store_name, error) from error
        public = f"{STORE} refused a command"
        kind = WrongKindOfKey if str(error).startswith("WRONGTYPE") else CorruptData
        # A server that does not know a command quotes what it was given: keys, which have no place in a log.
        detail = str(error).partition(_QUOTING)[0]
        raise kind(f"{store_name} refused a command", detail=detail, public=public) from error
    except (redis.exceptions.RedisError, redis.exceptions.RedisClusterException, OSError) as error:
        raise _down(store_name, error) from error


def require_address(url: str, store_name: str) -> None:
    """Refuse an address that redis-py cannot use; nothing is connected.

    Args:
        url: of the store.
        store_name: for messages, without passwords.

    Raises:
        InvalidRequest: the scheme, port, database or an option is wrong.
    """
    try:
        parts = urlsplit(url)
        database = parts.path.strip("/")
        # redis-py takes database 0 for one that is no number.
        if parts.scheme in ("redis", "rediss") and database and not database.isdecimal():
            raise ValueError(f'database "{database}" is not a number')
        redis.ConnectionPool.from_url(url).make_connection()
    except (ValueError, TypeError, redis.exceptions.RedisError) as error:
        raise InvalidRequest(
            f"{store_name} is not an address",
            # A library quotes what it could not read, which may be half of a password; an option's name is none.
            detail=redacted(str(error))
            if "@" not in url or isinstance(error, TypeError)
            else "A password's special characters are written as %40.",
            hint="write redis://host:port/db, rediss://host:port/db for TLS, or unix:///path",
        ) from error


def _down(store_name: str, error: Exception) -> OnlineStoreDown:
    """The store does not answer."""
    return OnlineStoreDown(
        f"{store_name} does not answer",
        detail=str(error),
        hint="start the store, or correct its address",
        public=f"{STORE} does not answer\nhint: retry with backoff",
    )


def _refusal(store_name: str, error: Exception) -> OnlineStoreDown:
    """Retried like an outage: a password or a right may be in the middle of being changed."""
    return OnlineStoreDown(
        f"{store_name} refuses this user",
        detail=str(error),
        hint="correct user and password in the store's address, or give that user the right",
        public=f"{STORE} refuses this server",
    )


def _unready(store_name: str, error: Exception, how: str) -> OnlineStoreDown:
    """The store answers, but not what it is asked for."""
    public = f"{STORE} is {how}\nhint: retry with backoff"
    return OnlineStoreDown(f"{store_name} is {how}", detail=str(error), public=public)
