"""What is wanted of nested records: a column is a path of field names, such as "card.bin"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from featurestore.wire.formats.columns import WantedColumn


@dataclass(slots=True)
class Wish:
    """What is wanted of a field.

    Attributes:
        columns: that are the field itself.
        fields: of it, of which something is wanted.
    """

    columns: list[WantedColumn] = field(default_factory=list)
    fields: dict[str, Wish] = field(default_factory=dict)

    def all_columns(self) -> list[WantedColumn]:
        """The columns of the field, and of all in it."""
        return self.columns + [column for inner in self.fields.values() for column in inner.all_columns()]


NOTHING = Wish()

NO_COLUMN_HOLDS = "which no column holds"
"""What is said of lists and maps."""


def wish_for(columns: Sequence[WantedColumn], *, is_path: Callable[[WantedColumn], bool] = lambda column: True) -> Wish:
    """What some columns want of a record.

    Args:
        columns: that are read.
        is_path: whether points in the name of a column's field lead into records.
    """
    whole = Wish()
    for column in columns:
        wish = whole
        for name in column.field.split(".") if is_path(column) else (column.field,):
            wish = wish.fields.setdefault(name, Wish())
        wish.columns.append(column)
    return whole


def with_article(noun: str) -> str:
    """A type as a message says it.

    >>> with_article("enum"), with_article("uint64")
    ('an enum', 'a uint64')
    """
    return f"an {noun}" if noun[0] in "aeio" else f"a {noun}"
