"""AT TIME ZONE: between moments and what clocks on walls show, with daylight saving, for columns of times at once.

The rules come from the IANA database in the `tzdata` package, not from the machine: stream, lookup and history must
tell the same hour. Offsets of a zone are looked up once for each block of about ten years, by asking the standard
library's zoneinfo once a day and bisecting where the answer changed; then a column of times is one binary search.

    offset  +1h ──────────┐ +2h ───────────┐ +1h
    instant               │ 2026-03-29 01Z │ 2026-10-25 01Z
    wall    ... 01:59:59  └ 03:00  02:59:59 └ 02:00 ...      02:30 exists never, then twice

A wall time that never was is read with the offset before the change, one that was twice means its second time
(DuckDB's rules). An unknown zone, and times outside the years 1 to 9999, give null.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib import resources
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from featurestore.core.events import BoolArray, Int64Array, ObjectArray
from featurestore.core.expressions.calendar import DAY_MS, SECOND_MS
from featurestore.core.expressions.kinds import Kind
from featurestore.core.expressions.overload import Overloads, fixed
from featurestore.core.expressions.vector import Kernel, partial

BLOCK_MS = 3_653 * DAY_MS
"""Times that share one table of offsets: ten years."""

BLOCKS_KEPT_MAX = 10_000
"""Tables that are remembered, of a few hundred bytes each: all zones over the decades that payments have."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_1_MS = -62_135_596_800_000
_YEAR_10000_MS = 253_402_300_800_000
_FIRST_CHANGE_MS = -6_311_433_600_000
"""1770: no zone of the database changed before; all of them kept local mean time."""
_RULES_ONLY_MS = 4_102_444_800_000
"""2100: from here on every zone follows a yearly rule, so offsets repeat with the calendar, every 400 years."""
_CALENDAR_CYCLE_MS = 146_097 * DAY_MS
_UNKNOWN = -1
_MARGIN_MS = 2 * DAY_MS
"""More than any offset: a block's table also answers for wall times, which can lie outside the block's instants."""


class _Offsets(NamedTuple):
    """Offsets of one zone over one block.

    Attributes:
        changes_ms: (K,) instants at which a new offset begins.
        walls_ms: (K,) what walls show right after.
        offsets_ms: (K + 1,) offset before the first change, then after each.
    """

    changes_ms: Int64Array
    walls_ms: Int64Array
    offsets_ms: Int64Array


def zone_names() -> frozenset[str]:
    """Names of the IANA database, spelled as there (Europe/Berlin)."""
    return _zone_names()


@lru_cache(maxsize=1)
def _zone_names() -> frozenset[str]:
    return frozenset(resources.files("tzdata").joinpath("zones").read_text(encoding="utf-8").split())


@lru_cache(maxsize=1_000)
def _zone(name: str) -> ZoneInfo:
    # Straight from the package: ZoneInfo(name) would prefer the machine's own database.
    with resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as rules:
        return ZoneInfo.from_file(rules, key=name)


@lru_cache(maxsize=BLOCKS_KEPT_MAX)
def _offsets(name: str, block: int) -> _Offsets:
    zone = _zone(name)
    begin = max(block * BLOCK_MS - _MARGIN_MS, _YEAR_1_MS + _MARGIN_MS)
    changes: list[int] = []
    offsets = [_offset_ms(zone, begin)]
    for time_ms in range(begin + DAY_MS, (block + 1) * BLOCK_MS + _MARGIN_MS + DAY_MS, DAY_MS):
        offset_ms = _offset_ms(zone, time_ms)
        if offset_ms != offsets[-1]:
            changes.append(_change_ms(zone, time_ms - DAY_MS, time_ms))
            offsets.append(offset_ms)
    changes_ms, offsets_ms = np.array(changes, dtype=np.int64), np.array(offsets, dtype=np.int64)
    return _Offsets(changes_ms, changes_ms + offsets_ms[1:], offsets_ms)


def _offset_ms(zone: ZoneInfo, time_ms: int) -> int:
    offset = (_EPOCH + timedelta(milliseconds=time_ms)).astimezone(zone).utcoffset()
    assert offset is not None
    return offset // timedelta(milliseconds=1)


def _change_ms(zone: ZoneInfo, low_ms: int, high_ms: int) -> int:
    """The first second at which the offset is that of `high_ms`."""
    before_ms = _offset_ms(zone, low_ms)
    low, high = low_ms // SECOND_MS, high_ms // SECOND_MS
    while high - low > 1:
        middle = (low + high) // 2
        if _offset_ms(zone, middle * SECOND_MS) == before_ms:
            low = middle
        else:
            high = middle
    return high * SECOND_MS


def _zone_offsets_ms(times_ms: Int64Array, name: str, *, on_walls: bool) -> Int64Array:
    """Offset from UTC of each time; `on_walls` says that the times are local ones."""
    cycled = (times_ms - _RULES_ONLY_MS) % _CALENDAR_CYCLE_MS + _RULES_ONLY_MS
    comparable = np.where(times_ms >= _RULES_ONLY_MS, cycled, np.maximum(times_ms, _FIRST_CHANGE_MS))
    blocks = comparable // BLOCK_MS
    distinct = set(blocks.tolist())
    if len(distinct) == 1:
        return _block_offsets_ms(comparable, _offsets(name, distinct.pop()), on_walls=on_walls)
    offsets_ms = np.zeros(len(times_ms), dtype=np.int64)
    for block in distinct:
        rows = np.flatnonzero(blocks == block)
        offsets_ms[rows] = _block_offsets_ms(comparable[rows], _offsets(name, block), on_walls=on_walls)
    return offsets_ms


def _block_offsets_ms(times_ms: Int64Array, offsets: _Offsets, *, on_walls: bool) -> Int64Array:
    changes_ms = offsets.walls_ms if on_walls else offsets.changes_ms
    return offsets.offsets_ms[np.searchsorted(changes_ms, times_ms, side="right")]


def _at_time_zone(*, on_walls: bool) -> Kernel:
    sign = -1 if on_walls else 1

    def shift(times_ms: Int64Array, names: ObjectArray) -> tuple[Int64Array, BoolArray]:
        defined = (times_ms >= _YEAR_1_MS) & (times_ms < _YEAR_10000_MS)
        times_ms = np.where(defined, times_ms, 0)
        distinct = set(names.tolist())
        if len(distinct) == 1:
            name = _known(distinct.pop())
            if name is None:
                return times_ms, np.zeros(1, dtype=np.bool_)
            return times_ms + sign * _zone_offsets_ms(times_ms, name, on_walls=on_walls), defined
        if len(times_ms) != len(names):
            times_ms, defined = np.broadcast_to(times_ms, len(names)), np.broadcast_to(defined, len(names))
        # All unknown names share a code, so that a column of nonsense costs no more than one of zones.
        codes = {name: code for code, name in enumerate({_known(raw) for raw in distinct} - {None})}
        code_of = {raw: codes.get(_known(raw), _UNKNOWN) for raw in distinct}
        row_codes = np.fromiter(map(code_of.__getitem__, names.tolist()), np.int64, len(names))
        shifted = times_ms.copy()
        for name, code in codes.items():
            rows = np.flatnonzero(row_codes == code)
            shifted[rows] += sign * _zone_offsets_ms(times_ms[rows], str(name), on_walls=on_walls)
        return shifted, defined & (row_codes != _UNKNOWN)

    return partial(shift)


def _known(name: bytes) -> str | None:
    """The name if it is one; looked up as text, so that no value of a column ever becomes a path."""
    text = name.decode("utf-8", errors="replace")
    return text if text in zone_names() else None


OVERLOADS: Overloads = {
    "AT TIME ZONE": (
        fixed(Kind.INSTANT, Kind.TEXT, gives=Kind.LOCAL, kernel=_at_time_zone(on_walls=False)),
        fixed(Kind.LOCAL, Kind.TEXT, gives=Kind.INSTANT, kernel=_at_time_zone(on_walls=True)),
    )
}
