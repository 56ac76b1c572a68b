"""AT TIME ZONE: between moments and what clocks on walls show, with daylight saving, for columns of times at once.

The offsets are `core.time_zones`', looked up once for each block of ten years; then a column of times is one binary
search.

    offset  +1h ──────────┐ +2h ───────────┐ +1h
    instant               │ 2026-03-29 01Z │ 2026-10-25 01Z
    wall    ... 01:59:59  └ 03:00  02:59:59 └ 02:00 ...      02:30 exists never, then twice

A wall time that never was is read with the offset before the change, one that was twice means its second time
(DuckDB's rules). An unknown zone, and times outside the years 1 to 9999, give null.
"""

from __future__ import annotations

import numpy as np

from featurestore.core.events import BoolArray, Int64Array, ObjectArray
from featurestore.core.expressions.kinds import Kind
from featurestore.core.expressions.overload import Overloads, fixed
from featurestore.core.expressions.vector import Kernel, partial
from featurestore.core.windows.time_zones import (
    BLOCK_MS,
    CALENDAR_CYCLE_MS,
    MEAN_TIME_MS,
    RULES_ONLY_MS,
    ZoneOffsets,
    zone_names,
    zone_offsets,
)

_YEAR_1_MS = -62_135_596_800_000
_YEAR_10000_MS = 253_402_300_800_000
_UNKNOWN = -1


def _zone_offsets_ms(times_ms: Int64Array, name: str, *, on_walls: bool) -> Int64Array:
    """Offset from UTC of each time; `on_walls` says that the times are local ones."""
    cycled = (times_ms - RULES_ONLY_MS) % CALENDAR_CYCLE_MS + RULES_ONLY_MS
    comparable = np.where(times_ms >= RULES_ONLY_MS, cycled, np.maximum(times_ms, MEAN_TIME_MS))
    blocks = comparable // BLOCK_MS
    distinct = set(blocks.tolist())
    if len(distinct) == 1:
        return _block_offsets_ms(comparable, zone_offsets(name, distinct.pop()), on_walls=on_walls)
    offsets_ms = np.zeros(len(times_ms), dtype=np.int64)
    for block in distinct:
        rows = np.flatnonzero(blocks == block)
        offsets_ms[rows] = _block_offsets_ms(comparable[rows], zone_offsets(name, block), on_walls=on_walls)
    return offsets_ms


def _block_offsets_ms(times_ms: Int64Array, offsets: ZoneOffsets, *, on_walls: bool) -> Int64Array:
    begins_ms = offsets.begins_ms + offsets.offsets_ms if on_walls else offsets.begins_ms
    return offsets.offsets_ms[np.searchsorted(begins_ms, times_ms, side="right") - 1]


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
