"""Events that are sent again with other values: drawn records of one partition, and by hand what is left of them."""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from featurestore.core.spec import ValueType
from featurestore.testing.batches import iso_time
from featurestore.wire.payloads import RawBatch
from tests.wire.changed_table import BEGIN_MS, HOUR_MS, TOPIC, Row
from tests.wire.changed_table import SOURCE as CHANGED

SOURCE = replace(
    CHANGED,
    changes="replace",
    max_future_ms=5 * HOUR_MS,
    columns=tuple(replace(one, type=ValueType.STRING) if one.name == "payment_id" else one for one in CHANGED.columns),
)
MINUTE_MS = 60_000


@dataclass
class Producer:
    """Draws the records of a partition.

    Attributes:
        draw: decides.
        prefix: of its ids.
        sent: a row each, and None for one that cannot be used.
    """

    draw: random.Random
    prefix: str = "p"
    sent: list[Row | None] = field(default_factory=list)
    _now_ms: int = BEGIN_MS

    def send(self, count: int, *, ahead_ms: int = 0) -> None:
        """New events, some again with other values or the same, some that cannot be used, and time that passes.

        Args:
            count: how many.
            ahead_ms: how far ahead of the others some are dated.
        """
        for _ in range(count):
            kind = self.draw.choice(["new", "new", "new", "again", "again", "again", "same", "broken", "ahead"])
            known = [row for row in self.sent[-25:] if row is not None]
            if kind == "broken":
                self.sent.append(None)
            elif kind == "same" and known:
                self.sent.append(self.draw.choice(known))
            elif kind == "again" and known:
                self.sent.append(self._changed(self.draw.choice(known)))
            else:
                row = self._row(f"{self.prefix}-{len(self.sent)}")
                self.sent.append({**row, "paid_at": row["paid_at"] + (ahead_ms if kind == "ahead" else 0)})
            steps = [0, 0, 1, 7 * MINUTE_MS, 20 * MINUTE_MS, 61 * MINUTE_MS]
            self._now_ms += self.draw.choices(steps, [4, 4, 4, 4, 2, 1])[0]

    def raw(self, first: int, end: int, partition: int = 0) -> RawBatch:
        """Some of the records as one read."""
        return RawBatch(
            TOPIC, partition, first, end, np.arange(first, end), list(map(payload_of, self.sent[first:end]))
        )

    def _changed(self, row: Row) -> Row:
        """The same event as its producer knows it now."""
        fresh = self._row(row["payment_id"])
        return {**row, **{name: fresh[name] for name in self.draw.sample(sorted(row.keys() - {"payment_id"}), 2)}}

    def _row(self, payment_id: str) -> Row:
        draw = self.draw
        return {
            "payment_id": payment_id,
            "paid_at": self._now_ms - draw.choice([0, 0, 0, 1, 5 * MINUTE_MS, 90 * MINUTE_MS]),
            "card_id": f"c-{draw.randrange(4)}",
            "cents": draw.choice([0, 250, -75, draw.randrange(100_000)]),
            "amount": draw.randrange(4_000) / 4,
            "declined": draw.random() < 0.3,
            "note": draw.choice([None, "", "é"]),
        }


def payload_of(row: Row | None) -> bytes:
    """A record."""
    return (
        b"{" if row is None else json.dumps({**row, "paid_at": iso_time(row["paid_at"])}, ensure_ascii=False).encode()
    )


def left_of(
    sent: Sequence[Row | None], refused: Collection[int] = (), *, horizon_ms: int = HOUR_MS, seen: Collection[int] = ()
) -> dict[int, Row]:
    """What is left of the records of a partition, by offset: of each event the last version, as long as it is held.

    Args:
        sent: the records.
        refused: offsets of those that became dead letters.
        horizon_ms: how far the partition may come until a version is not held any more.
        seen: of the refused those whose time counts.
    """
    newest_ms, left, held = BEGIN_MS - 10 * HOUR_MS, dict[int, Row](), dict[str, tuple[int, int]]()
    for offset, row in enumerate(sent):
        if row is None or (offset in refused and offset not in seen):
            continue
        newest_ms = max(newest_ms, row["paid_at"])
        if offset in refused:
            continue
        known = held.get(row["payment_id"])
        if known is not None and newest_ms - known[1] <= horizon_ms:
            del left[known[0]]
        held[row["payment_id"]] = offset, newest_ms
        left[offset] = row
    return left
