"""Entity keys as bytes, and the lane each belongs to.

A key is the tuple of join-key values, in the view's order. Its bytes are canonical (equal tuples, equal bytes;
unequal tuples, unequal bytes) and part of the store's layout, so they never change within a layout version:

    one STRING key      the UTF-8 text itself
    one INT64 key       decimal text, "-17"
    several             each as above, preceded by its length in bytes and ":" ("4:c-17" "2:DE" -> b"4:c-172:DE")

Text rather than packed integers: an operator can read and type the key that a store holds.

Logs, errors and metrics name an entity by `fingerprint`, never by its key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import xxhash

from featurestore.core.events import Int64Array
from featurestore.core.spec import Column, ValueType

KEY_BYTES_MAX = 1024
"""Longest canonical key accepted, bytes."""

FINGERPRINT_BYTES = 4
"""Short on purpose: of all card numbers that there could be, millions have the same one."""

EntityValue = str | int


def encode_value(value: EntityValue) -> bytes:
    """Canonical bytes of one join-key value."""
    return value.encode() if isinstance(value, str) else b"%d" % value


def encode_key(values: Sequence[EntityValue]) -> bytes:
    """Canonical bytes of an entity key.

    >>> encode_key(["c-17"]), encode_key([17]), encode_key(["c-17", "DE"])
    (b'c-17', b'17', b'4:c-172:DE')
    """
    return join_parts([encode_value(value) for value in values])


def join_parts(parts: Sequence[bytes]) -> bytes:
    """An entity key from the canonical bytes of each join-key value."""
    if len(parts) == 1:
        return parts[0]
    return b"".join(b"%d:%s" % (len(part), part) for part in parts)


def decode_key(key: bytes, join_keys: Sequence[Column]) -> tuple[EntityValue, ...]:
    """The values of a canonical key, typed as the join keys say; for messages and tools, not hot paths."""
    texts = [part.decode() for part in split_key(key, len(join_keys))]
    return tuple(
        int(text) if column.type is ValueType.INT64 else text for text, column in zip(texts, join_keys, strict=True)
    )


def split_key(key: bytes, count: int) -> list[bytes]:
    """The canonical bytes of each of the `count` join-key values of an entity key: what `join_parts` joined.

    >>> split_key(b"c-17", 1), split_key(b"4:c-172:DE", 2)
    ([b'c-17'], [b'c-17', b'DE'])
    """
    if count == 1:
        return [key]
    parts, rest = [], key
    for _ in range(count):
        length, _, rest = rest.partition(b":")
        parts.append(rest[: int(length)])
        rest = rest[int(length) :]
    return parts


def fingerprint(key: bytes) -> str:
    """What logs and errors call an entity: who knows a key can find its lines (`featurestore fingerprint`), not others.

    >>> fingerprint(b"c-17")
    '#5db212ce'
    """
    return f"#{hashlib.blake2b(key, digest_size=FINGERPRINT_BYTES, person=b'entity').hexdigest()}"


def lane_of(key: bytes, lane_count: int) -> int:
    """The lane of a canonical key: XXH3-64 modulo the store's fixed number of lanes."""
    return xxhash.xxh3_64_intdigest(key) % lane_count


def pack_of(key: bytes, packs: int) -> int:
    """Which of its lane's packs a canonical key is in: by the upper half of the same hash."""
    return (xxhash.xxh3_64_intdigest(key) >> 32) % packs


def packs_of(keys: Sequence[bytes], packs: int) -> Int64Array:
    """`pack_of` for K keys, shape (K,)."""
    digests = np.fromiter(map(xxhash.xxh3_64_intdigest, keys), dtype=np.uint64, count=len(keys))
    return ((digests >> np.uint64(32)) % np.uint64(packs)).astype(np.int64)


def lanes_of(keys: Sequence[bytes], lane_count: int) -> Int64Array:
    """`lane_of` for K keys, shape (K,)."""
    digest = xxhash.xxh3_64_intdigest
    return np.fromiter((digest(key) % lane_count for key in keys), dtype=np.int64, count=len(keys))
