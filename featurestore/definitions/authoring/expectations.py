"""What authors expect of a source's records, before it is in the source's tags.

kafka_source(..., expectations=[
expect("amount >= 0", on_fail="dead_letter"),
null_share("currency", at_most=0.02),
one_of("channel", ["chip", "online"], on_fail="count"),
])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from featurestore.definitions.compile.expectations import EXPECTATION_TAG_PREFIX, FRESHNESS_TAG, expectation_text
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


def expectation_tags(source: str, expectations: Sequence[ExpectedOfRecords], freshness: str = "") -> dict[str, str]:
    """The tags of a source.

    Raises:
        InvalidRequest: two have one name.
    """
    tags: dict[str, str] = {FRESHNESS_TAG: freshness} if freshness else {}
    for one in expectations:
        tag = EXPECTATION_TAG_PREFIX + one.name
        if tag in tags:
            hint = "give each its own name=..."
            raise InvalidRequest(f'source "{source}" has two expectations called "{one.name}"', hint=hint)
        tags[tag] = expectation_text(one.condition, one.on_fail, one.at_most)
    return tags


def _quoted(column: str) -> str:
    """A column's name as SQL has it."""
    return '"' + column.replace('"', '""') + '"'


def _text(value: str) -> str:
    """A text as SQL has it."""
    return "'" + value.replace("'", "''") + "'"
