"""What became of a write."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from featurestore.core.events import Int64Array


@dataclass(frozen=True, slots=True)
class WriteReport:
    """What one `write` did.

    Attributes:
        events_applied: events committed.
        duplicates_dropped: events whose id was seen within the horizon.
        erased_dropped: events of whose entity everything of their time is erased.
        replayed_skipped: events that lanes had applied before.
        newest_event_time_ms: newest event time applied, 0 when none was.
        lanes_committed: lanes that took part in the commit.
        entities_compacted: heads that were folded into their bodies.
        event_time_ms: (events_applied,) of the events committed.
        bytes_written: of rows and bodies, names not counted.
        damaged: what is wrong with entities that were set aside; readers are refused them, everything else goes on.
    """

    events_applied: int
    duplicates_dropped: int
    replayed_skipped: int
    newest_event_time_ms: int
    lanes_committed: int
    entities_compacted: int
    damaged: tuple[str, ...] = ()
    bytes_written: int = 0
    erased_dropped: int = 0
    event_time_ms: Int64Array = field(default_factory=lambda: np.empty(0, dtype=np.int64), compare=False)
