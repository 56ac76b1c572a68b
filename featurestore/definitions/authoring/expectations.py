"""What authors expect of a source's records, before it is in the source's tags.

kafka_source(..., expectations=[
expect("amount >= 0", on_fail="dead_letter"),
null_share("currency", at_most=0.02),
one_of("channel", ["chip", "online"], on_fail="count"),
usual_volume(at_least=0.5, at_most=2),
])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from featurestore.definitions.compile.expectations import (
    EXPECTATION_TAG_PREFIX,
    FRESHNESS_TAG,
    USUAL_HOUR_TAG_PREFIX,
    expectation_text,
)
from featurestore.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class ExpectedOfRecords:
    """One expectation before its source is known; `kafka_source` makes a tag of it.

    Attributes:
        name: of the expectation.
        condition: SQL over the source's columns.
        on_fail: "dead_letter" or "count".
        at_most: share of an hour's records that may fail.
    """

    name: str
    condition: str
    on_fail: str
    at_most: float


@dataclass(frozen=True, slots=True)
class ExpectedOfHours:
    """What is expected of every hour of a source; `kafka_source` makes a tag of it.

    Attributes:
        measure: "volume" or "lateness".
        at_least: times what the same hour of other days has.
        at_most: times what the same hour of other days has.
    """

    measure: str
    at_least: float
    at_most: float


def usual_volume(*, at_least: float, at_most: float) -> ExpectedOfHours:
    """An hour of event time has about as many records as the same hour of other days.

    What is usual is the median of the seven days before, of three at least. The newest hour that is over is looked at.

    Args:
        at_least: times what is usual, such as 0.5.
        at_most: times what is usual, such as 2.
    """
    return ExpectedOfHours("volume", at_least, at_most)


def usual_lateness(*, at_most: float) -> ExpectedOfHours:
    """Records of an hour come about as late as in the same hour of other days.

    A record is as late as its event time lies behind the newest one that its partition had before. The mean of an hour
    is compared with the median of the seven days before, of three at least, or with a second where that is more.

    Args:
        at_most: times what is usual, such as 3.
    """
    return ExpectedOfHours("lateness", 0.0, at_most)


def expect(condition: str, *, on_fail: str, name: str = "", at_most: float = 0.0) -> ExpectedOfRecords:
    """What every record of a source is to meet.

    Args:
        condition: SQL over the source's columns, computed ones too. A record meets it where it is true: neither where
            it is false, nor where a null makes it null ("amount >= 0 OR amount IS NULL" lets nulls pass).
        on_fail: "dead_letter": no view counts the record, online and in history; part of what views mean. "count": it
            is counted, and used as any other.
        name: what `featurestore status` and metrics call it; default: the condition.
        at_most: share of an hour's records that may fail before the contract counts as broken, such as 0.02.
    """
    return ExpectedOfRecords(name or condition, condition, on_fail, at_most)


def null_share(column: str, *, at_most: float) -> ExpectedOfRecords:
    """A column is null in so many records at most.

    Args:
        column: of the source.
        at_most: share of an hour's records, such as 0.02.
    """
    return expect(f"{_quoted(column)} IS NOT NULL", on_fail="count", name=f"{column} is not null", at_most=at_most)


def one_of(
    column: str, values: Sequence[str | int], *, on_fail: str, name: str = "", at_most: float = 0.0
) -> ExpectedOfRecords:
    """A column has one of some values; a null has none of them.

    Args:
        column: of the source.
        values: texts or integers.
        on_fail: as in `expect`.
        name: as in `expect`; default: "{column} is known".
        at_most: as in `expect`.
    """
    listed = ", ".join(str(value) if isinstance(value, int) else _text(value) for value in values)
    return expect(
        f"{_quoted(column)} IN ({listed})", on_fail=on_fail, name=name or f"{column} is known", at_most=at_most
    )


def expectation_tags(
    source: str, expectations: Sequence[ExpectedOfRecords | ExpectedOfHours], freshness: str = ""
) -> dict[str, str]:
    """The tags of a source.

    Raises:
        InvalidRequest: two have one name.
    """
    tags: dict[str, str] = {FRESHNESS_TAG: freshness} if freshness else {}
    for one in expectations:
        if isinstance(one, ExpectedOfHours):
            name, tag = one.measure, USUAL_HOUR_TAG_PREFIX + one.measure
            text, hint = f"{one.at_least:g} to {one.at_most:g}", "keep one of them"
        else:
            name, tag = one.name, EXPECTATION_TAG_PREFIX + one.name
            text, hint = expectation_text(one.condition, one.on_fail, one.at_most), "give each its own name=..."
        if tag in tags:
            raise InvalidRequest(f'source "{source}" has two expectations called "{name}"', hint=hint)
        tags[tag] = text
    return tags


def _quoted(column: str) -> str:
    """A column's name as SQL has it."""
    return '"' + column.replace('"', '""') + '"'


def _text(value: str) -> str:
    """A text as SQL has it."""
    return "'" + value.replace("'", "''") + "'"
