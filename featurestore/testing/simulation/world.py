"""A store, a log, streams that write and a reader that looks: all in one thread, by one clock, from one seed.

steps (schedule.py) ─ happen to ─> log, stream processes, store, clocks ─ after each ─> every answer (auditor.py)
at the end: no more faults, whoever is an operator helps, everything is read ─> every view equals the whole log
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from featurestore.core.spec import ViewSpec
from featurestore.errors import CorruptData, FeatureStoreError, InternalError, WriterFenced
from featurestore.online.generation import Generation
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.registration import bootstrap_target
from featurestore.online.serving_view import serving_views
from featurestore.online.write import bootstrap
from featurestore.testing.clock import ManualClock
from featurestore.testing.simulation.audit.auditor import Auditor
from featurestore.testing.simulation.definitions import SOURCE, Definitions
from featurestore.testing.simulation.process import (
    LANES,
    PROJECT,
    SkewedClock,
    StartStream,
    StreamParts,
    StreamProcess,
)
from featurestore.testing.simulation.producer import Producer
from featurestore.testing.simulation.small_world import small_world
from featurestore.testing.simulation.stand_ins.client import Begin, StoreClient
from featurestore.testing.simulation.stand_ins.disk import Disk
from featurestore.testing.simulation.stand_ins.log import Place, SimulatedLog
from featurestore.testing.simulation.stand_ins.recorded import RecordedLog
from featurestore.testing.simulation.stand_ins.store import Copy, SimulatedStore
from featurestore.wire.payloads import DeadLetter, DeadLetterReason
from featurestore.wire.store_layout import Checkpoint

COPIES_MAX = 3

RECORDS_TAG = b"{%s}" % PROJECT.encode()
"""What the keys begin with that belong to no lane."""

_BY_THE_CLOCK = {DeadLetterReason.TOO_FAR_IN_FUTURE, DeadLetterReason.BEYOND_RETENTION}
"""Reasons that depend on when a record was looked at."""


@dataclass(frozen=True, slots=True)
class StoreCopy:
    """A backup, and what only we know of what is in it."""

    store: Copy
    begins: dict[tuple[bytes, int], Begin]
    lost_checkpoints: dict[bytes, bytes]
    unknowable: set[tuple[str, bytes]]


class World:
    """Everything that there is.

    Args:
        start_stream: starts a stream process.
        disk: of the dead letters.
        letters: where they are.
        definitions: of the views, to change between.

    Attributes:
        counts: how often what happened.
    """

    def __init__(self, start_stream: StartStream, disk: Disk, letters: Path, definitions: Definitions) -> None:
        self._start_stream = start_stream
        self.disk = disk
        self.letters = letters
        self.counts: Counter[str] = Counter()
        self.clock = ManualClock()
        self.store = SimulatedStore(self.clock.now_ms)
        self.log = SimulatedLog(SOURCE.topic, 2)
        self.producer = Producer(self.log, self.counts)
        self.auditor = Auditor(self.store, self.log, self.counts, self.clock.now_ms)
        self.catalog = GenerationCatalog(self.store, PROJECT)
        self.views: dict[str, ViewSpec] = {name: choices[0] for name, choices in definitions.items()}
        self.definitions = definitions
        self.skewed = SkewedClock(self.clock)
        self.clients: list[StoreClient] = []
        self.processes: list[StreamProcess] = []
        self.last_error: BaseException | None = None
        self.begun: list[Generation] = []
        self.bootstrapped: dict[str, dict[Place, int]] = {}
        self.copies: list[StoreCopy] = [self.copy()]
        self.start()

    @property
    def process(self) -> StreamProcess:
        """The one that was started last."""
        return self.processes[-1]

    @property
    def client(self) -> StoreClient:
        """Its way to the store."""
        return self.clients[-1]

    def start(self) -> None:
        """Start a stream process; others go on, and find out."""
        client = self.new_client()
        client.roll_back = lambda seed: self.restore(random.Random(seed))
        self.clients.append(client)

        def note_begin(generation: Generation, number: int, first: int) -> None:
            client.starts[generation.keys.stem, number] = (self.log.incarnation, first)

        parts = StreamParts(
            store=client,
            log=self.log,
            views=tuple(self.views.values()),
            clock=self.skewed,
            letters=self.letters,
            counts=self.counts,
            on_begin=note_begin,
            on_letters=self._note_letters,
        )
        self.processes.append(self._start_stream(parts))
        self.judge()

    def new_client(self) -> StoreClient:
        """Somebody's way to the store."""
        return StoreClient(self.store, self.counts, self.auditor.begins)

    def crash(self) -> None:
        """The newest process is gone; what it sent may still be under way."""
        if len(self.processes) > 1:
            self.processes.pop()
            return
        self.counts["crash"] += 1
        self.start()
        del self.processes[0]

    def judge(self) -> None:
        """Nobody may fail but for a reason; who is to plan again, or failed, is started by its supervisor."""
        for index, process in reversed(list(enumerate(self.processes))):
            if process.is_running:
                continue
            error = process.error
            if error is not None:
                self.last_error = error
                self.counts[f"stream failed: {type(error).__name__}"] += 1
                if not isinstance(error, FeatureStoreError) or isinstance(error, InternalError):
                    raise AssertionError(f"a stream process failed by a bug of ours: {error!r}") from error
            if index < len(self.processes) - 1 or isinstance(error, WriterFenced):
                del self.processes[index]

    def supervise(self) -> None:
        """Start the stream if none is running."""
        if not self.processes or not self.processes[-1].is_running:
            self.processes[-1:] = []
            self.start()

    def checkpoint(self, generation: Generation, lane: int) -> Checkpoint:
        """What a lane has applied."""
        name = generation.keys.checkpoint(lane)
        [stored] = self.store.read_groups([[name]])
        return self.auditor.checkpoint(name, stored)

    def copy(self) -> StoreCopy:
        """A backup of the store."""
        auditor = self.auditor
        return StoreCopy(
            self.store.contents(),
            dict(auditor.begins),
            dict(auditor.lost_checkpoints),
            set(auditor.unknowable),
        )

    def restore(self, draw: random.Random, tag: bytes = b"") -> None:
        """The store, or one node of a cluster, comes back as an older copy of itself."""
        if not self.copies:
            return
        copy, auditor = draw.choice(self.copies), self.auditor
        self.store.restore(copy.store, lambda key: key.startswith(tag))
        auditor.begins.update((of, begin) for of, begin in copy.begins.items() if of[0].startswith(tag))
        for key in [key for key in auditor.lost_checkpoints if key.startswith(tag)]:
            del auditor.lost_checkpoints[key]
        lost = {key: said for key, said in copy.lost_checkpoints.items() if key.startswith(tag)}
        auditor.lost_checkpoints.update(lost)
        auditor.unknowable |= copy.unknowable
        self.counts["store went back"] += 1

    def check(self, draw: random.Random, *, is_everything: bool = False) -> None:
        """What must hold after every step."""
        if draw.random() < 0.7 or is_everything:
            self.auditor.look()
        as_of_ms = self.clock.now_ms() + draw.choice((0, 0, 0, 1, -500, -20_000, -200_000, 61_000))
        self.auditor.check(as_of_ms, is_everything=is_everything)

    def begin_bootstrap(self, name: str, *, is_anew: bool) -> Generation:
        """Begin to compute a view from the event log, or the storage group that it is in."""
        target = bootstrap_target(self.catalog.all(), tuple(self.views.values()), name)
        assert target is not None, "the view is registered"
        return self.catalog.begin_bootstrap(target, is_anew=is_anew)

    def fill(self, generation: Generation, client: StoreClient, ends: dict[int, int]) -> None:
        """Compute the lanes of a bootstrapping generation that are not complete."""
        ends = {number: min(end, self.log.at(number).end) for number, end in ends.items()}
        recorded = RecordedLog(self.log, generation.view, LANES, ends)
        lanes = bootstrap.missing_lanes(self.store, generation, LANES, recorded.positions)
        for number, end in ends.items():
            client.starts[generation.keys.stem, number] = (self.log.incarnation, 0)
            place = Place(self.log.incarnation, number)
            passed = self.bootstrapped.setdefault(generation.keys.stem, {})
            passed[place] = max(end, passed.get(place, 0))
        bootstrap.fill_lanes(client, generation, recorded, lanes, self.skewed)

    def catch_up(self) -> None:
        """Read everything, and promote what can be."""
        for _ in range(12):
            self.supervise()
            process = self.process
            for _ in range(4):
                if not process.is_running:
                    break
                process.read_all()
                process.commit()
                process.commit()
                self.clock.advance_ms(1_100)
                process.watch()
            self.judge()
            if process.is_running and not self.wanting():
                return

    def wanting(self) -> list[str]:
        """What is missing to a store that has everything."""
        wanting = []
        try:
            known = self.catalog.all()
        except CorruptData as error:
            return [str(error)]
        served = serving_views(known)
        for name in self.views:
            if name not in served:
                wanting.append(f"{name} is not served")
                continue
            serving = served[name].generation
            for lane in range(LANES):
                reached = {number: offset for _, number, offset in self.checkpoint(serving, lane).positions}
                for number in range(self.log.count):
                    begin = self.auditor.begins.get((serving.keys.checkpoint(lane), number), (0, 0))
                    records = self.log.at(number).records
                    last = records[-1].offset + 1 if records else 0
                    if reached.get(number, 0) < last or (last and begin[0] != self.log.incarnation):
                        wanting.append(f"{serving.keys.stem} lane {lane} is at {reached.get(number)} of {last}")
        return wanting

    def _note_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Letters are durable."""
        for letter in letters:
            if letter.reason in _BY_THE_CLOCK:
                position = (Place(self.log.incarnation, letter.partition), letter.offset)
                self.auditor.letters.add((letter.view or "", position))


@contextmanager
def a_world(start_stream: StartStream, definitions: Definitions) -> Iterator[World]:
    """A new world; nothing is left of it."""
    with small_world() as disk, tempfile.TemporaryDirectory() as directory:
        yield World(start_stream, disk, Path(directory), definitions)
