"""Bytewax's own sliding windows over the same transactions: count, sum and maximum of a card's last hour.

    python -m benchmarks.peers.bytewax_windows RECORDS.jsonl      prints a report as JSON

The hop is 5 minutes (the product's is 1 minute for this window, five times as many windows), one view instead of three,
nothing is stored, and a value appears when its window closes, not when somebody asks.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import bytewax.operators.windowing as win
import msgspec
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, run_main

WINDOW = timedelta(hours=1)
HOP = timedelta(minutes=5)
WINDOWS_PER_EVENT = WINDOW // HOP

_NEVER_LATE = timedelta(days=3_650)
_EPOCH = datetime(2020, 1, 1, tzinfo=UTC)


class Payment(msgspec.Struct):
    """The columns that the features read."""

    card_id: str
    event_time: datetime
    amount: int | None


def measure(records: list[bytes]) -> Mapping[str, float]:
    """Fold all records; processor time, events, and the totals by which to check the answer."""
    closed: list[Any] = []
    flow = Dataflow("windows")
    read = op.input("read", flow, TestingSource(records, batch_size=8_192))
    decoder = msgspec.json.Decoder(Payment)
    keyed = op.key_on("key", op.map("decode", read, decoder.decode), lambda payment: payment.card_id)
    windows = win.fold_window(
        "fold",
        keyed,
        win.EventClock(lambda payment: payment.event_time, _NEVER_LATE),
        win.SlidingWindower(WINDOW, HOP, _EPOCH),
        lambda: (0, 0, 0),
        _fold,
        _merge,
    )
    op.output("write", windows.down, TestingSink(closed))
    begun_s = time.process_time()
    run_main(flow)  # type: ignore[no-untyped-call]  # Bytewax does not annotate it
    return {
        "cpu_s": time.process_time() - begun_s,
        "events": len(records),
        "windows": len(closed),
        "count": sum(value[0] for _, (_, value) in closed),
        "total": sum(value[1] for _, (_, value) in closed),
    }


def _fold(found: tuple[int, int, int], payment: Payment) -> tuple[int, int, int]:
    amount = payment.amount or 0
    return found[0] + 1, found[1] + amount, max(found[2], amount)


def _merge(left: tuple[int, int, int], right: tuple[int, int, int]) -> tuple[int, int, int]:
    return left[0] + right[0], left[1] + right[1], max(left[2], right[2])


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]).read_bytes().splitlines())))
