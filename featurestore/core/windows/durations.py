"""Durations as texts: as authors write them ("500ms", "15m", "90d"), and as people like to read them."""

from __future__ import annotations

import re

from featurestore.errors import InvalidRequest

UNITS_MS = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
"""Milliseconds a unit, longest first. "m" is a minute; months have no fixed length, so there is no unit for them."""

_WORDS_MS = (("days", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1))
_READABLE_UNITS_MS = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000))
_DURATION = re.compile(r"\s*(\d{1,15})\s*(ms|s|m|h|d|w)\s*", re.ASCII)


def parse_duration_ms(text: str) -> int:
    """Milliseconds of a duration such as "90d".

    Raises:
        InvalidRequest: the text is not a whole number followed by a unit.

    >>> parse_duration_ms("1m"), parse_duration_ms("90d"), parse_duration_ms("250ms")
    (60000, 7776000000, 250)
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        hint = 'write a whole number and a unit, such as "15m" or "7d"'
        raise InvalidRequest(f'"{text}" is not a duration', hint=hint)
    return int(match[1]) * UNITS_MS[match[2]]


def format_duration(duration_ms: int) -> str:
    """The shortest text that `parse_duration_ms` reads back as the same number; days rather than weeks.

    >>> format_duration(7_776_000_000), format_duration(90_000), format_duration(1), format_duration(0)
    ('90d', '90s', '1ms', '0ms')
    """
    for unit, unit_ms in UNITS_MS.items():
        if unit != "w" and duration_ms and duration_ms % unit_ms == 0:
            return f"{duration_ms // unit_ms}{unit}"
    return f"{duration_ms}ms"


def duration_words(duration_ms: int) -> str:
    """The whole of a duration, for people.

    >>> duration_words(604_800_000), duration_words(10_080_000), duration_words(86_400_000), duration_words(0)
    ('7 days', '2 h 48 min', '1 day', '0 ms')
    """
    words = []
    for unit, unit_ms in _WORDS_MS:
        count, duration_ms = divmod(duration_ms, unit_ms)
        if count:
            words.append(f"{count} {'day' if unit == 'days' and count == 1 else unit}")
    return " ".join(words) or "0 ms"


def readable_duration(duration_ms: float) -> str:
    """A measured duration in the unit that fits; not for `parse_duration_ms`.

    >>> readable_duration(38), readable_duration(5_400), readable_duration(7_200_000)
    ('38 ms', '5.4 s', '2.0 h')
    """
    for unit, size_ms in _READABLE_UNITS_MS:
        if duration_ms >= 2 * size_ms:
            return f"{duration_ms / size_ms:.1f} {unit}"
    return f"{duration_ms:.0f} ms"
