"""Offsets of time zones as tables: what the clocks of a zone show, without asking zoneinfo for every moment.

The rules come from the IANA database in the `tzdata` package, not from the machine: stream, lookup and history must
tell the same day. A table covers ten years; it is made by asking the standard library's zoneinfo once a day and
bisecting where the answer changed, and then kept.

    offset  +1h ──────────┐ +2h ───────────┐ +1h
    instant               │ 2026-03-29 01Z │ 2026-10-25 01Z
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from importlib import resources
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from featurestore.core.events import Int64Array

SECOND_MS = 1_000
DAY_MS = 86_400_000

BLOCK_MS = 3_653 * DAY_MS
"""Times that share one table: ten years."""

RULES_ONLY_MS = 4_102_444_800_000
"""2100: from here on every zone follows a yearly rule, so offsets repeat with the calendar, every 400 years."""

CALENDAR_CYCLE_MS = 146_097 * DAY_MS
"""400 years, which are whole weeks."""

MEAN_TIME_MS = -6_311_433_600_000
"""1770: no zone of the database changed before; all of them kept local mean time."""

_TABLES_KEPT_MAX = 10_000
_DAY_SECONDS = DAY_MS // SECOND_MS
_BLOCK_SECONDS = BLOCK_MS // SECOND_MS
_MARGIN_SECONDS = 3 * _DAY_SECONDS
"""More than any offset and a day: a block's table also answers for local times, which can lie outside its instants."""


class ZoneOffsets(NamedTuple):
    """Offsets of one zone over one block of instants and a margin.

    Attributes:
        begins_ms: (K,) instants from which each offset holds, the first far in the past.
        offsets_ms: (K,) what walls show minus UTC.
    """

    begins_ms: Int64Array
    offsets_ms: Int64Array


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    """Names of the IANA database, spelled as there (Europe/Berlin)."""
    return frozenset(resources.files("tzdata").joinpath("zones").read_text(encoding="utf-8").split())


@lru_cache(maxsize=1_000)
def zone_rules(name: str) -> ZoneInfo:
    """The rules of a zone of `zone_names`, straight from the package: ZoneInfo(name) would prefer the machine's."""
    with resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as rules:
        return ZoneInfo.from_file(rules, key=name)


@lru_cache(maxsize=_TABLES_KEPT_MAX)
def zone_offsets(name: str, block: int) -> ZoneOffsets:
    """Offsets of instants in [block * BLOCK_MS, (block + 1) * BLOCK_MS), and three days more on both sides.

    Args:
        name: one of `zone_names`.
        block: of times between the years 1000 and 9000; callers move others there, see CALENDAR_CYCLE_MS.
    """
    zone = zone_rules(name)
    first, last = block * _BLOCK_SECONDS - _MARGIN_SECONDS, (block + 1) * _BLOCK_SECONDS + _MARGIN_SECONDS
    begins, offsets = [first - CALENDAR_CYCLE_MS // SECOND_MS], [_offset(zone, first)]
    for second in range(first + _DAY_SECONDS, last + _DAY_SECONDS, _DAY_SECONDS):
        offset = _offset(zone, second)
        if offset != offsets[-1]:
            begins.append(_change(zone, second - _DAY_SECONDS, second))
            offsets.append(offset)
    offsets_ms = [offset // timedelta(milliseconds=1) for offset in offsets]
    return ZoneOffsets(np.array(begins, dtype=np.int64) * SECOND_MS, np.array(offsets_ms, dtype=np.int64))


def _offset(zone: ZoneInfo, second: int) -> timedelta:
    offset = datetime.fromtimestamp(second, zone).utcoffset()
    assert offset is not None, "zoneinfo knows an offset for every moment"
    return offset


def _change(zone: ZoneInfo, low: int, high: int) -> int:
    """The first second at which the offset is that of `high`."""
    before = _offset(zone, low)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(zone, middle) == before:
            low = middle
        else:
            high = middle
    return high
