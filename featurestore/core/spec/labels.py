"""What labels are: what a model shall learn of an event, as it becomes known long after the event."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from featurestore.core.spec.views import TableSpec


class OnConflict(StrEnum):
    """What counts where several labels of one event are known."""

    LAST = "last"
    """The one that became known last."""
    ANY_POSITIVE = "any_positive"
    """The largest: true where one of them is."""
    REFUSE = "refuse"
    """None: labels that contradict each other are an error."""


@dataclass(frozen=True, slots=True)
class LabelSourceSpec:
    """A table of labels.

    Attributes:
        name: of the source.
        join_keys: columns that name the event that a label is about, beside its time.
        labels: columns with what is to be learned.
        matures_after_ms: how long after its event nothing more is expected to become known.
        on_conflict: what counts where labels of one event differ.
        table: where the rows are; its timestamp column has event times, its created column when rows became known.
    """

    name: str
    join_keys: tuple[str, ...]
    labels: tuple[str, ...]
    matures_after_ms: int
    on_conflict: OnConflict
    table: TableSpec
