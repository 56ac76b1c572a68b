"""The records of what was erased, in the online store: a hash that only grows.

Whoever writes lanes reads it after it has taken them; whoever erases adds to it first, and changes the lanes then. So
an event that is erased is either deleted, or its writer knows that it is.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from featurestore.online.generation import Generation
from featurestore.online.store import OnlineStore
from featurestore.wire.erasures import (
    SALT_BYTES,
    ErasedKeys,
    Erasure,
    decode_erasure,
    digest_of,
    encode_erasure,
)
from featurestore.wire.store_layout import erasures_key


class ErasureBook:
    """The records of a project.

    Args:
        store: the online store.
        project: Feast project.
    """

    def __init__(self, store: OnlineStore, project: str) -> None:
        self._store = store
        self._key = erasures_key(project)

    def all(self) -> list[Erasure]:
        """Every record, by name.

        Raises:
            CorruptData: one of them does not decode.
        """
        return [decode_erasure(data) for _, data in sorted(self._store.hash_fields(self._key).items())]

    def find(self, join_key: str, value: bytes) -> Erasure | None:
        """The record of a value that reaches furthest; None where nothing of it was erased."""
        return max(
            (
                one
                for one in self.all()
                if one.join_key == join_key and one.digest == digest_of(join_key, value, one.salt)
            ),
            key=lambda one: one.before_ms,
            default=None,
        )

    def add(self, join_key: str, value: bytes, *, before_ms: int, now_ms: int) -> Erasure:
        """Erase what happened before a moment; what was erased stays so.

        Args:
            join_key: its name.
            value: canonical bytes.
            before_ms: event times before this one.
            now_ms: processing time.

        Returns:
            The record as it is now, which may reach further.
        """
        known = self.all()
        salt = known[0].salt if known else secrets.token_hex(SALT_BYTES)
        found = self.find(join_key, value)
        wanted = found or Erasure(join_key, salt, digest_of(join_key, value, salt), before_ms, now_ms)
        return self.keep(Erasure(join_key, wanted.salt, wanted.digest, before_ms, now_ms))

    def keep(self, erasure: Erasure) -> Erasure:
        """Add a record, unless there is one that reaches as far."""
        field = erasure.name.encode()
        while True:
            stored = self._store.hash_field(self._key, field)
            if stored is not None and (known := decode_erasure(stored)).before_ms >= erasure.before_ms:
                return known
            if self._store.compare_and_set_field(self._key, field, stored, encode_erasure(erasure)):
                return erasure


def erased_keys(store: OnlineStore, generation: Generation) -> ErasedKeys:
    """What was erased of a generation's entities."""
    return ErasedKeys(ErasureBook(store, generation.project).all(), join_key_names(generation))


def join_key_names(generation: Generation) -> Sequence[str]:
    """Names of a generation's join keys, in the order of its entity keys."""
    return [one.name for one in generation.view.join_keys]
