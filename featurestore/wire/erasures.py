"""Whose data was erased, and what of it: known by a keyed hash of the join-key value, never by the value.

    record    join key, salt, digest of the value, before_ms
    rule      an event of that value with event_time_ms < before_ms is erased, wherever and whenever it turns up

The rule needs nothing but an event's key and its time. So stream, event log, bootstrap and replay drop the same ones,
also late ones, retries and copies; what happened at `before_ms` or later counts, as of somebody new.

The digest is BLAKE2b with 128 bits, keyed by a random salt that the record holds. It keeps tables of known hashes
away; whoever can read the record and knows all values that there could be can still try them one after the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from featurestore.core.events import BoolArray, Int64Array
from featurestore.errors import CorruptData
from featurestore.wire.entity_key import split_key

NOTHING_ERASED_MS = -(1 << 63)
"""Before this nothing happened."""

DIGEST_BYTES = SALT_BYTES = 16


@dataclass(frozen=True, slots=True)
class Erasure:
    """What was erased of one value of a join key.

    Attributes:
        join_key: name of the join key, which is a column of its sources.
        salt: key of the digest, hexadecimal.
        digest: of the value, hexadecimal.
        before_ms: event times before this one are erased.
        erased_ms: when that was asked for, ms UTC.
    """

    join_key: str
    salt: str
    digest: str
    before_ms: int
    erased_ms: int

    @property
    def name(self) -> str:
        """What it is stored under."""
        return f"{self.join_key}.{self.digest}"


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Erasure)


def encode_erasure(erasure: Erasure) -> bytes:
    """A record."""
    return _encoder.encode(erasure)


def decode_erasure(data: bytes) -> Erasure:
    """What `encode_erasure` made.

    Raises:
        CorruptData: the bytes are no record: whoever went on might bring back what was erased.
    """
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise CorruptData("a record of erased data does not decode", detail=str(error)) from error


def digest_of(join_key: str, value: bytes, salt: str) -> str:
    """The digest of a join-key value.

    Args:
        join_key: its name.
        value: canonical bytes, as an entity key has them.
        salt: key of the digest, hexadecimal.
    """
    hashed = hashlib.blake2b(f"{join_key}\0".encode() + value, digest_size=DIGEST_BYTES, key=bytes.fromhex(salt))
    return hashed.hexdigest()


class ErasedKeys:
    """What was erased of the entities of some join keys.

    Args:
        erasures: records, of any join keys.
        join_keys: names of a view's join keys, in its order.
    """

    def __init__(self, erasures: Iterable[Erasure], join_keys: Sequence[str]) -> None:
        self._part_count = len(join_keys)
        self._parts: list[tuple[int, str, str, dict[str, int]]] = []
        known: dict[tuple[str, str], dict[str, int]] = {}
        for one in erasures:
            if one.join_key in join_keys:
                digests = known.setdefault((one.join_key, one.salt), {})
                digests[one.digest] = max(one.before_ms, digests.get(one.digest, NOTHING_ERASED_MS))
        for (join_key, salt), digests in known.items():
            self._parts.append((join_keys.index(join_key), join_key, salt, digests))
        self._all_before_ms = max(
            (ms for *_, digests in self._parts for ms in digests.values()), default=NOTHING_ERASED_MS
        )

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._parts)

    def before_ms(self, key: bytes) -> int:
        """Events of an entity before this are erased; NOTHING_ERASED_MS where none are."""
        parts = split_key(key, self._part_count)
        return max(
            (
                digests.get(digest_of(join_key, parts[index], salt), NOTHING_ERASED_MS)
                for index, join_key, salt, digests in self._parts
            ),
            default=NOTHING_ERASED_MS,
        )

    def kept(self, keys: Sequence[bytes], key_index: Int64Array, event_time_ms: Int64Array) -> BoolArray | None:
        """Which of N events were not erased.

        Args:
            keys: entity keys.
            key_index: (N,) whose events they are.
            event_time_ms: (N,) when they happened.

        Returns:
            (N,) whether to keep each; None for all, which is the common case.
        """
        # Events of now are newer than whatever was erased: no key is hashed for them.
        if not len(event_time_ms) or int(event_time_ms.min()) >= self._all_before_ms:
            return None
        before_ms = np.fromiter(map(self.before_ms, keys), dtype=np.int64, count=len(keys))
        if not (before_ms > NOTHING_ERASED_MS).any():
            return None
        is_kept: BoolArray = event_time_ms >= before_ms[key_index]
        return is_kept
