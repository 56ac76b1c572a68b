"""Local times against the standard library's zoneinfo, asked one moment at a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from importlib import resources
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from featurestore.core.expressions import compile_expression
from featurestore.core.spec import ValueType
from featurestore.core.windows.time_zones import zone_names
from tests.core.expressions.columns import column_of, values_of

TYPES = {"t": ValueType.TIMESTAMP, "zone": ValueType.STRING}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR_MS = 3_600_000

ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",  # moves by half an hour
    "Africa/Casablanca",  # leaves its daylight saving for Ramadan
    "Asia/Kathmandu",  # was moved by a quarter of an hour
    "Pacific/Apia",  # skipped a day
    "America/Caracas",
    "Europe/Dublin",  # has its daylight saving in winter
)


def zone_of(name: str) -> ZoneInfo:
    """The zone from the tzdata package."""
    with resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as rules:
        return ZoneInfo.from_file(rules, key=name)


def local_ms(time_ms: int, zone: ZoneInfo) -> int:
    """What the wall shows."""
    moment = (EPOCH + timedelta(milliseconds=time_ms)).astimezone(zone)
    return (moment.replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)


def evaluated(text: str, times_ms: list[int], names: list[str | None]) -> list[object]:
    """Rows of an expression over times and zones."""
    expression = compile_expression(text, TYPES)
    columns = {"t": column_of(times_ms, ValueType.TIMESTAMP), "zone": column_of(names, ValueType.STRING)}
    return values_of(expression.evaluate(columns, len(times_ms)), expression.type)


def times_around_changes(zone: ZoneInfo) -> list[int]:
    """Moments on, just before and just after each change from 1900 to 2110, and some in between, and far away."""
    times: list[int] = [-62_000_000_000_000, -10_000_000_000_000, 20_000_000_000_000, 253_000_000_000_000]
    day_ms = 24 * HOUR_MS
    previous = None
    for time_ms in range(-2_208_988_800_000, 4_417_977_600_000, day_ms):
        offset_ms = local_ms(time_ms, zone) - time_ms
        if previous is not None and offset_ms != previous:
            times += [time_ms + minutes * 60_000 for minutes in range(-24 * 60, 1, 15)]
            times += [time_ms + minutes * 60_000 - 1 for minutes in range(-24 * 60, 1, 15)]
        previous = offset_ms
    return times


@pytest.mark.parametrize("name", ZONES)
def test_local_times_are_those_of_the_tz_database(name: str) -> None:
    """Around every change of a zone's clocks in two centuries, to the millisecond."""
    zone = zone_of(name)
    times_ms = times_around_changes(zone)

    expected = [local_ms(time_ms, zone) for time_ms in times_ms]
    assert expected == evaluated("EPOCH_MS(t AT TIME ZONE zone)", times_ms, [name] * len(times_ms))
    assert expected == evaluated(f"EPOCH_MS(t AT TIME ZONE '{name}')", times_ms, [None] * len(times_ms))


def test_local_times_lead_back_to_their_moment() -> None:
    """But for the hour that clocks show twice, which means its second time, and the hour that they skip."""
    hours = list(range(366 * 24))
    begin = 1_767_225_600_000  # 2026-01-01
    back = evaluated(
        "t AT TIME ZONE zone AT TIME ZONE zone", [begin + h * HOUR_MS for h in hours], ["Europe/Berlin"] * len(hours)
    )
    moved = [h for h, time_ms in zip(hours, back, strict=True) if time_ms != begin + h * HOUR_MS]

    assert [datetime(2026, 10, 25, 0, tzinfo=UTC)] == [
        EPOCH + timedelta(milliseconds=begin + h * HOUR_MS) for h in moved
    ]


def test_a_day_begins_when_the_wall_says_so() -> None:
    """Local midnight of a payment on the day of a change of clocks is an hour from where UTC has it."""
    midnight = "DATE_TRUNC('day', t AT TIME ZONE zone) AT TIME ZONE zone"
    noon_ms = 1_774_785_600_000  # 2026-03-29T12:00Z, fourteen o'clock in Berlin, thirteen hours after its midnight

    assert [noon_ms - 13 * HOUR_MS, noon_ms - 12 * HOUR_MS] == evaluated(
        midnight, [noon_ms] * 2, ["Europe/Berlin", "UTC"]
    )


def test_zones_may_differ_from_row_to_row() -> None:
    """Each row by its own zone; unknown names and nulls are null, and no name is ever a path."""
    names = ["Asia/Tokyo", "Nowhere/At_All", None, "America/New_York", "../../../etc/passwd", "europe/berlin", ""]
    hours = evaluated("EXTRACT(hour FROM t AT TIME ZONE zone)", [1_769_860_800_000] * len(names), list(names))

    assert [21, None, None, 7, None, None, None] == hours


def test_zones_of_the_database_can_be_used() -> None:
    """Their names are known, and their tables can be built; one in ten stands for all."""
    names = sorted(zone_names())[::10]
    hours = evaluated("EXTRACT(hour FROM t AT TIME ZONE zone)", [1_769_860_800_000] * len(names), list(names))

    assert len(zone_names()) > 500
    assert None not in hours


def test_times_across_all_years_cost_a_bounded_number_of_tables() -> None:
    """A column of nonsense from 8,000 years takes no longer than two centuries."""
    times_ms = np.linspace(-62_000_000_000_000, 253_000_000_000_000, 5_000).astype(np.int64).tolist()
    zone = zone_of("America/New_York")

    assert [local_ms(time_ms, zone) for time_ms in times_ms] == evaluated(
        "EPOCH_MS(t AT TIME ZONE 'America/New_York')", times_ms, [None] * len(times_ms)
    )
