"""redis-py's errors as ours, in one place: the writer's connections and the readers' pipeline map alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis

from featurestore.errors import CorruptData, DeadlineSpent, OnlineStoreDown

# Answers of a server that is failing over, re-sharding or out of memory: the same command may succeed later.
_TEMPORARY = (
    redis.exceptions.ReadOnlyError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.TryAgainError,
)
_BUSY = ("BUSY", "UNKILLABLE", "MISCONF", "NOREPLICAS")


@contextmanager
def mapped_errors(store_name: str, *, has_deadline: bool = False) -> Iterator[None]:
    """Run a block whose errors are redis-py's or a socket's.

    Args:
        store_name: for messages, without passwords.
        has_deadline: a wait that ended without an answer is the caller's deadline, not an outage.

    Raises:
        OnlineStoreDown: the store does not answer, or not now.
        DeadlineSpent: it did not within the deadline.
        CorruptData: it refused a command.
    """
    try:
        yield
    except redis.exceptions.TimeoutError as error:
        if has_deadline:
            raise DeadlineSpent(f"{store_name} did not answer within the deadline") from error
        raise _down(store_name, error) from error
    except _TEMPORARY as error:
        raise OnlineStoreDown(f"{store_name} is not ready", detail=str(error)) from error
    except (redis.exceptions.ResponseError, redis.exceptions.InvalidResponse) as error:
        if str(error).startswith(_BUSY):
            raise OnlineStoreDown(f"{store_name} is busy", detail=str(error)) from error
        raise CorruptData(f"{store_name} refused a command", detail=str(error)) from error
    except (redis.exceptions.RedisError, OSError) as error:
        raise _down(store_name, error) from error


def _down(store_name: str, error: Exception) -> OnlineStoreDown:
    """The store does not answer."""
    return OnlineStoreDown(
        f"{store_name} does not answer", detail=str(error), hint="start the store, or correct its address"
    )
