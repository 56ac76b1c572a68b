"""What a source's contract says of decoded records: columns in, one flag a record and expectation out.

An expectation is evaluated like the condition of a feature, as a flag beside the events' columns, so whatever a view
asks about the same thing is computed once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from featurestore.core.events import EventBatch, Int64Array
from featurestore.core.inputs import ViewInputs, flag_name
from featurestore.core.spec import Expectation, FeatureSpec, OnFail, SourceSpec, ValueType, ViewSpec, Window
from featurestore.wire.payloads import DeadLetter, DeadLetterReason, RawBatch


@dataclass(frozen=True, slots=True)
class Failures:
    """The records that do not meet an expectation.

    Attributes:
        expectation: which.
        rows: indices into the batch, ascending; at least one.
    """

    expectation: Expectation
    rows: Int64Array


class ContractCheck:
    """Checks decoded records of a source.

    Args:
        source: whose records.
        expectations: of that source.

    Attributes:
        source: its name.
        expectations: the same.
        columns: payload columns to decode for it, by name.
    """

    def __init__(self, source: SourceSpec, expectations: Iterable[Expectation]) -> None:
        self.source = source.name
        self.expectations = tuple(expectations)
        conditions = dict.fromkeys(one.condition for one in self.expectations)
        asked = tuple(FeatureSpec("", "count", None, Window(None), ValueType.INT64, where=text) for text in conditions)
        self._inputs = ViewInputs(ViewSpec(source.name, (), source, asked, None))
        self.columns = self._inputs.payload_columns

    def flagged(self, events: EventBatch) -> EventBatch:
        """The events with a flag for each expectation among their columns, and with what is computed for it.

        Args:
            events: N events with `columns`.
        """
        columns = dict(events.columns)
        self._inputs.compute(columns, len(events.offsets))
        return replace(events, columns=columns)

    def failures(self, flagged: EventBatch) -> list[Failures]:
        """Of each expectation that some record does not meet, in their order.

        Args:
            flagged: from `flagged`.
        """
        found = []
        for one in self.expectations:
            flag = flagged.columns[flag_name(one.condition)].values
            assert isinstance(flag, np.ndarray), "a flag is an array"
            if not flag.all():
                found.append(Failures(one, np.flatnonzero(flag == 0)))
        return found


def letters_of(failures: Sequence[Failures], events: EventBatch, raw: RawBatch) -> list[DeadLetter]:
    """One letter for each record that breaks what no view may do without, by offset; it says all that is broken."""
    broken: dict[int, list[str]] = {}
    for one in failures:
        if one.expectation.on_fail is OnFail.DEAD_LETTER:
            for row in one.rows.tolist():
                broken.setdefault(row, []).append(one.expectation.name)
    letters = []
    for row in sorted(broken):
        offset = int(events.offsets[row])
        payload = raw.payloads[int(raw.offsets.searchsorted(offset))]
        detail = "it does not meet " + ", ".join(f'"{name}"' for name in broken[row])
        letters.append(
            DeadLetter(DeadLetterReason.EXPECTATION_FAILED, detail, raw.topic, raw.partition, offset, payload)
        )
    return letters
