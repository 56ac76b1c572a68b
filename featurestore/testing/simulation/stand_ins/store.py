"""An online store in memory, by a clock that its owner drives: what Redis and the scripts of `online/redis` do.

    key ──> bytes | hash | something that is not ours     each with the moment at which it expires, or none

Every method does what the script or command of the same purpose does, step by step and in its order, errors included:
`tests/simulation/test_store_contract.py` sends drawn operations here and to a real Redis, and compares all bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from featurestore.errors import CorruptData, WrongKindOfKey
from featurestore.online.eviction import NO_EVICTION, StoreMemory
from featurestore.online.store import AsyncReads, LaneCommit, LaneOutcome, MadeCommit, PendingCommit, ThreadedReads
from featurestore.wire.codecs.bodies.frame import MAGIC, MAGIC_BESIDE_HEAD
from featurestore.wire.codecs.head_kernels import BESIDE_BODY
from featurestore.wire.store_layout import history_key

_LIMIT_BYTES = 1 << 30


class NotOurs:
    """A value of a kind that no command of ours can use, such as a list."""


_NOT_OURS = NotOurs()
_Hash = Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Stored:
    """What a key holds, and when it goes; None never."""

    value: bytes | _Hash | NotOurs
    expires_ms: int | None = None


Copy = Mapping[bytes, Stored]
"""What a store held at some moment."""


class WrongKind(Exception):
    """WRONGTYPE, as Redis says."""


class SimulatedStore:
    """An OnlineStore in memory; see `online.store` for what each method promises.

    Args:
        now_ms: the server's clock.

    Attributes:
        evicted_keys: keys that were evicted so far.
        evicts: whether the server's policy evicts.
    """

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._keys: dict[bytes, Stored] = {}
        self.evicted_keys = 0
        self.evicts = False

    def begin_commit(self, lanes: Sequence[LaneCommit]) -> PendingCommit:
        """See OnlineStore: it is over at once."""
        return MadeCommit(self.commit(lanes))

    def commit(self, lanes: Sequence[LaneCommit]) -> list[LaneOutcome]:
        """See OnlineStore: an error of one lane is raised after the others were applied, as of a pipeline."""
        outcomes: list[LaneOutcome] = []
        failure: WrongKind | None = None
        for lane in lanes:
            try:
                outcomes.append(self._commit_lane(lane))
            except WrongKind as error:
                failure = failure or error
        if failure is not None:
            raise _refused(failure) from failure
        return outcomes

    def read_groups(self, groups: Sequence[Sequence[bytes]], *, timeout_ms: float | None = None) -> list[bytes | None]:
        """See OnlineStore; what is no string is nothing, as for MGET."""
        values = [self._find(key) for group in groups for key in group]
        return [one.value if one is not None and isinstance(one.value, bytes) else None for one in values]

    def async_reads(self) -> AsyncReads:
        """See OnlineStore."""
        return ThreadedReads(self)

    def compare_and_set(self, key: bytes, expected: bytes | None, replacement: bytes) -> bool:
        """See OnlineStore."""
        with _errors():
            if self._get(key) != expected:
                return False
        self._keys[key] = Stored(replacement)
        return True

    def compare_and_set_field(self, key: bytes, field: bytes, expected: bytes | None, replacement: bytes) -> bool:
        """See OnlineStore."""
        with _errors():
            fields = self._fields(key)
        if fields.get(field) != expected:
            return False
        found = self._find(key)
        self._keys[key] = Stored({**fields, field: replacement}, None if found is None else found.expires_ms)
        before = self._get(history_key(key)) or b""
        history = hashlib.sha1(before + field + replacement, usedforsecurity=False).hexdigest()
        self._set(history_key(key), history.encode(), 0)
        return True

    def write_newer(self, entries: Sequence[tuple[bytes, int, bytes, int]]) -> None:
        """See OnlineStore."""
        for key, event_time_ms, value, expire_ms in entries:
            with _errors():
                found = (self._get(key) or b"")[:8]
            if len(found) == 8 and int.from_bytes(found, "little", signed=True) > event_time_ms:
                continue
            self._set(key, event_time_ms.to_bytes(8, "little", signed=True) + value, expire_ms)

    def hash_fields(self, key: bytes) -> dict[bytes, bytes]:
        """See OnlineStore."""
        with _errors():
            return dict(self._fields(key))

    def hash_version(self, key: bytes) -> bytes:
        """See OnlineStore."""
        history = self._get(history_key(key))
        return b"" if history is None else b"%b %d" % (history, len(self._fields(key)))

    def hash_field(self, key: bytes, field: bytes) -> bytes | None:
        """See OnlineStore."""
        return self._fields(key).get(field)

    def scan(self, pattern: bytes) -> Iterator[bytes]:
        """See OnlineStore."""
        matches = re.compile(_as_expression(pattern), re.DOTALL).fullmatch
        yield from [key for key in sorted(self._keys) if self._find(key) is not None and matches(key)]

    def delete(self, keys: Iterable[bytes]) -> int:
        """See OnlineStore."""
        return sum(self._delete(key) for key in list(keys))

    def memory(self) -> StoreMemory | None:
        """See OnlineStore."""
        policy = "allkeys-lru" if self.evicts else NO_EVICTION
        return StoreMemory(0, _LIMIT_BYTES, policy, self.evicted_keys, len(self._keys))

    def memory_bytes(self, key: bytes) -> int:
        """See OnlineStore."""
        found = self._find(key)
        return len(found.value) if found is not None and isinstance(found.value, bytes) else 0

    def require_rights(self, key: bytes) -> None:
        """See OnlineStore: everybody may do everything."""

    def close(self) -> None:
        """See OnlineStore."""

    def contents(self) -> dict[bytes, Stored]:
        """All that there is now."""
        return {key: found for key in sorted(self._keys) if (found := self._find(key)) is not None}

    def restore(self, copy: Copy, is_concerned: Callable[[bytes], bool] = lambda key: True) -> None:
        """Go back to what an older copy held, under some keys: those of one node, say."""
        kept = {key: stored for key, stored in self._keys.items() if not is_concerned(key)}
        self._keys = {**kept, **{key: stored for key, stored in copy.items() if is_concerned(key)}}

    def spoil(self, key: bytes, value: bytes | None = None) -> None:
        """Let somebody else's program write where it should not: other bytes, or a list."""
        self._keys[key] = Stored(_NOT_OURS if value is None else value)

    def unusable(self) -> list[bytes]:
        """Keys under which somebody has written a list."""
        return [key for key, found in self.contents().items() if isinstance(found.value, NotOurs)]

    def _commit_lane(self, lane: LaneCommit) -> LaneOutcome:
        """The COMMIT script."""
        found = self._get(lane.checkpoint_key) or b""
        if found != lane.expected:
            return LaneOutcome(False, found)
        for body_key, head_key, body in lane.bodies:
            if body:
                self._set(body_key, body, _granted_ms(lane))
            else:
                self._delete(body_key)
            self._delete(head_key)
        appended, marked = list[tuple[bytes, bytes, int]](), list[bytes]()
        long_heads, long_packs = list[int](), list[int]()
        own = [(lane.head_prefix + key, lane.body_prefix + key) for key in lane.entities]
        packed, low = lane.packed, 0
        try:
            if packed is None:
                for index, (head_key, body_key) in enumerate(own):
                    size = self._append_half(lane, head_key, body_key, lane.appends[index], appended, marked)
                    long_heads += [index] * (size >= lane.report_bytes_min)
            else:
                for pack, (name, high) in enumerate(zip(packed.names, packed.ends, strict=True)):
                    data = b""
                    for index, (record, rows) in enumerate(_records(packed.records[pack]), start=low):
                        if any(self._find(key) is not None for key in own[index]):
                            size = self._append_half(lane, *own[index], rows, appended, marked)
                            long_heads += [index] * (size >= lane.report_bytes_min)
                        else:
                            data += record
                    if data:
                        pair = packed.head_prefix + name, packed.body_prefix + name
                        size = self._append_half(lane, *pair, data, appended, marked)
                        long_packs += [pack] * (size >= packed.report_bytes_min)
                    low = high
            for key, data in lane.id_appends:
                appended.append((key, data, self._append(key, data)))
        except WrongKind:
            self._take_back(appended, marked)
            raise
        for key in lane.deletions:
            self._delete(key)
        if lane.replacement != lane.expected:
            self._set(lane.checkpoint_key, lane.replacement, 0)
        return LaneOutcome(True, b"", tuple(long_heads), tuple(long_packs))

    def _append_half(
        self,
        lane: LaneCommit,
        head_key: bytes,
        body_key: bytes,
        data: bytes,
        appended: list[tuple[bytes, bytes, int]],
        marked: list[bytes],
    ) -> int:
        """Append to the head of an entity or a pack; how long it is now."""
        size = self._append(head_key, data)
        appended.append((head_key, data, size))
        self._mark(lane, head_key, body_key, data, size, marked)
        return size

    def _mark(
        self, lane: LaneCommit, head_key: bytes, body_key: bytes, data: bytes, size: int, marked: list[bytes]
    ) -> None:
        """Let a head that begins beside a body know of it, and the body of the head; then let both live on."""
        failure: WrongKind | None = None
        try:
            if size == len(data) and (self._get(body_key) or b"")[:1] == bytes([MAGIC]):
                self._set_first(head_key, data[0] ^ BESIDE_BODY)
                self._set_first(body_key, MAGIC_BESIDE_HEAD)
                marked.append(body_key)
        except WrongKind as error:
            failure = error
        if lane.expire_ms > 0 and (size == len(data) or self._left_ms(head_key) < lane.expire_ms):
            self._expire(head_key, _granted_ms(lane))
            self._expire(body_key, _granted_ms(lane))
        if failure is not None:
            raise failure

    def _take_back(self, appended: Sequence[tuple[bytes, bytes, int]], marked: Sequence[bytes]) -> None:
        """Cut off what the script has appended."""
        for key, data, size in reversed(appended):
            before = size - len(data)
            if before == 0:
                self._delete(key)
            else:
                found = self._find(key)
                expires_ms = None if found is None else found.expires_ms
                self._keys[key] = Stored((self._get(key) or b"")[:before], expires_ms)
        for body_key in marked:
            found = self._find(body_key)
            if found is None or isinstance(found.value, bytes):
                self._set_first(body_key, MAGIC)

    def _find(self, key: bytes) -> Stored | None:
        """What a key holds; one that has expired is gone."""
        found = self._keys.get(key)
        if found is not None and found.expires_ms is not None and found.expires_ms <= self._now_ms():
            del self._keys[key]
            return None
        return found

    def _get(self, key: bytes) -> bytes | None:
        """GET."""
        found = self._find(key)
        if found is None:
            return None
        if not isinstance(found.value, bytes):
            raise WrongKind(key)
        return found.value

    def _fields(self, key: bytes) -> _Hash:
        """HGETALL."""
        found = self._find(key)
        if found is None:
            return {}
        if not isinstance(found.value, Mapping):
            raise WrongKind(key)
        return found.value

    def _set(self, key: bytes, value: bytes, expire_ms: int) -> None:
        """SET, with PX where something expires."""
        self._keys[key] = Stored(value, self._now_ms() + expire_ms if expire_ms > 0 else None)

    def _append(self, key: bytes, data: bytes) -> int:
        """APPEND."""
        before, found = self._get(key) or b"", self._find(key)
        self._keys[key] = Stored(before + data, None if found is None else found.expires_ms)
        return len(before) + len(data)

    def _set_first(self, key: bytes, byte: int) -> None:
        """SETRANGE of the first byte."""
        before, found = self._get(key) or b"", self._find(key)
        self._keys[key] = Stored(bytes([byte]) + before[1:], None if found is None else found.expires_ms)

    def _left_ms(self, key: bytes) -> int:
        """PTTL."""
        found = self._find(key)
        return -1 if found is None or found.expires_ms is None else found.expires_ms - self._now_ms()

    def _expire(self, key: bytes, expire_ms: int) -> None:
        """PEXPIRE."""
        found = self._find(key)
        if found is not None:
            self._keys[key] = Stored(found.value, self._now_ms() + expire_ms)

    def _delete(self, key: bytes) -> int:
        """DEL or UNLINK of one key."""
        is_there = self._find(key) is not None
        self._keys.pop(key, None)
        return int(is_there)


@contextmanager
def _errors() -> Iterator[None]:
    """A reply of the wrong kind as RedisStore reports it."""
    try:
        yield
    except WrongKind as error:
        raise _refused(error) from error


def _refused(error: WrongKind) -> CorruptData:
    """What RedisStore raises when the server refuses a command."""
    return WrongKindOfKey("simulated store refused a command", detail=f"WRONGTYPE {error}")


def _as_expression(pattern: bytes) -> bytes:
    """A SCAN pattern of stars, question marks and escaped characters."""
    parts = re.findall(rb"\\.|.", pattern, re.DOTALL)
    return b"".join(b".*" if part == b"*" else b"." if part == b"?" else re.escape(part[-1:]) for part in parts)


def _records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each record of a pack's head, and the rows in it."""
    at = 0
    while at < len(data):
        key_bytes, lengths_at = _number(data, at + 1)
        row_bytes, key_at = _number(data, lengths_at)
        end = key_at + key_bytes + row_bytes
        yield data[at:end], data[key_at + key_bytes : end]
        at = end


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A number in seven bits a byte, and what is behind it."""
    value, shift = 0, 0
    while data[at] >= 1 << 7:
        value, shift, at = value | data[at] % (1 << 7) << shift, shift + 7, at + 1
    return value | data[at] << shift, at + 1


def _granted_ms(lane: LaneCommit) -> int:
    """How long heads and bodies live that are given time anew."""
    return lane.expire_ms + lane.expire_ms // 8
