"""What a simulated stream process is made of, and what the simulator asks of it.

The process itself belongs to whoever has a stream: this package knows no dataflow. `tests/simulation/stream.py` drives
the steps of `dataflows.log_to_tiles` without Bytewax and without threads.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from featurestore.clock import Clock
from featurestore.core.spec import ViewSpec
from featurestore.online.generation import Generation
from featurestore.testing.clock import ManualClock
from featurestore.testing.simulation.stand_ins.client import StoreClient
from featurestore.testing.simulation.stand_ins.log import SimulatedLog
from featurestore.wire.payloads import DeadLetter

PROJECT = "simulated"
LANES = 2


class SkewedClock:
    """A machine whose wall clock is wrong: durations are as everywhere, the time of day is not.

    Args:
        true: the clock that is right.
    """

    def __init__(self, true: ManualClock) -> None:
        self._true = true
        self.skew_ms = 0

    def now_ms(self) -> int:
        """See Clock."""
        return self._true.now_ms() + self.skew_ms

    def monotonic_ns(self) -> int:
        """See Clock."""
        return self._true.monotonic_ns()

    def worked_ns(self) -> int:
        """See Clock."""
        return self._true.worked_ns()

    def sleep(self, seconds: float) -> None:
        """See Clock: time passes for all."""
        self._true.sleep(seconds)


@dataclass(frozen=True, slots=True)
class StreamParts:
    """What a stream process is given.

    Attributes:
        store: its way to the store.
        log: where events come from.
        views: the registered definitions.
        clock: its machine's.
        letters: directory of the dead letters.
        counts: to be told what happens.
        on_begin: to be told that a generation begins to read a partition, and which offset is the oldest there.
        on_letters: to be told of letters that are durable.
    """

    store: StoreClient
    log: SimulatedLog
    views: Sequence[ViewSpec]
    clock: Clock
    letters: Path
    counts: Counter[str]
    on_begin: Callable[[Generation, int, int], None]
    on_letters: Callable[[Sequence[DeadLetter]], None]


class StreamProcess(Protocol):
    """A stream that is driven step by step."""

    @property
    def is_running(self) -> bool:
        """Whether it goes on; otherwise it has ended, or is to be started anew."""
        ...

    @property
    def error(self) -> BaseException | None:
        """Why it failed, if it did."""
        ...

    def read(self, draw: random.Random) -> None:
        """Read, decode and key some records of some partition; they wait to be committed."""
        ...

    def read_all(self) -> int:
        """The same for every partition, to its end; returns how many records came."""
        ...

    def commit(self) -> None:
        """Commit what waits, or give a sign of life."""
        ...

    def watch(self) -> None:
        """Look after generations and partitions, if it is time to."""
        ...

    def stop(self) -> None:
        """Commit what waits, and end in order."""
        ...


StartStream = Callable[[StreamParts], StreamProcess]
"""Starts a process: it plans, and may fail while it does."""
