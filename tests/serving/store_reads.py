"""What a test does at the moment a lookup reads the store, whichever kind of server asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from featurestore.online.redis.pipeline import RedisPipeline
from featurestore.online.redis.store import RedisStore

Groups = Sequence[Sequence[bytes]]


def before_lookup_reads(patch: pytest.MonkeyPatch, do: Callable[[Groups, float], None]) -> None:
    """Call `do` with the keys and the time limit before each read of a lookup.

    Only lookups have a time limit. `do` may block: on asyncio it runs in a thread, as the wait for a store does not
    hold the loop up.
    """
    blocking, pipelined = RedisStore.read_groups, RedisPipeline.read_groups

    def read(store: RedisStore, groups: Groups, *, timeout_ms: float | None = None) -> list[bytes | None]:
        if timeout_ms is not None:
            do(groups, timeout_ms)
        return blocking(store, groups, timeout_ms=timeout_ms)

    async def read_async(
        reads: RedisPipeline, groups: Groups, *, timeout_ms: float | None = None
    ) -> list[bytes | None]:
        if timeout_ms is not None:
            await asyncio.to_thread(do, groups, timeout_ms)
        return await pipelined(reads, groups, timeout_ms=timeout_ms)

    patch.setattr(RedisStore, "read_groups", read)
    patch.setattr(RedisPipeline, "read_groups", read_async)
