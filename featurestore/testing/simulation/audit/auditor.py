"""Looks at every answer that a reader would get, and says when one is wrong.

A value is right when it is what the naive oracle says of the events that the checkpoint, which was read in the same
step, calls applied. Otherwise it must be refused, or its view not be served. Nothing else is asked of a store that has
been through anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from featurestore.errors import AsOfTooOld, CorruptData, InvalidRequest, StoreMismatch
from featurestore.online.answer.selection import Selection
from featurestore.online.generation import Generation
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.read.reader import EntityBytes, EntityRead
from featurestore.online.read.serving_generations import ServedViews, look
from featurestore.online.serving_view import ServingView
from featurestore.online.store import OnlineStore
from featurestore.testing.answers import all_of, answer_values
from featurestore.testing.oracle.tolerance import agrees
from featurestore.testing.simulation.audit.truth import Position, possibilities
from featurestore.testing.simulation.definitions import KEYS
from featurestore.testing.simulation.process import PROJECT
from featurestore.testing.simulation.stand_ins.client import Begin
from featurestore.testing.simulation.stand_ins.log import Place, SimulatedLog
from featurestore.wire.codecs.pack import is_member
from featurestore.wire.entity_key import lane_of
from featurestore.wire.store_layout import Checkpoint, decode_checkpoint


class WrongAnswer(AssertionError):
    """The simulation has found something."""


@dataclass
class Auditor:
    """Reads as a server does, and compares.

    Args:
        store: what readers read.
        log: everything that was sent.
        counts: told what happened.
        now_ms: the right time.

    Attributes:
        letters: records that were put among the dead letters, by view; "" is all of them.
        begins: where lanes began to read partitions, by the name of their checkpoint.
        unknowable: entities of which the only key was lost, by name of the generation's keys.
        lost_checkpoints: what they said, by key.
        served: what readers know, from their last look.
    """

    store: OnlineStore
    log: SimulatedLog
    counts: Counter[str]
    now_ms: Callable[[], int]
    letters: set[tuple[str, Position]] = field(default_factory=set)
    begins: dict[tuple[bytes, int], Begin] = field(default_factory=dict)
    unknowable: set[tuple[str, bytes]] = field(default_factory=set)
    lost_checkpoints: dict[bytes, bytes] = field(default_factory=dict)
    served: ServedViews | None = None
    catalog: GenerationCatalog = field(init=False)
    _checked: dict[tuple[str, str, bytes], tuple[object, ...]] = field(default_factory=dict)
    _selections: dict[tuple[str, str], Selection] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.catalog = GenerationCatalog(self.store, PROJECT)

    def look(self) -> None:
        """What readers do every second; a store that cannot be used is refused, and answers stop."""
        try:
            self.served = look(self.store, self.catalog, {} if self.served is None else self.served.views)
        except (CorruptData, StoreMismatch, InvalidRequest):
            self.counts["look refused"] += 1
            self.served = None

    def check(self, as_of_ms: int, *, is_everything: bool = False) -> None:
        """All entities of all views that are served.

        Args:
            as_of_ms: read time.
            is_everything: look again at what has not changed since.
        """
        if self.served is None:
            return
        for serving in self.served.views.values():
            generation = serving.generation
            reads = [EntityRead(generation, key.encode()) for key in KEYS]
            for read, found in zip(reads, self.served.reader.read(reads, with_checkpoint=True), strict=True):
                assert isinstance(found, EntityBytes), "a stream view is read as body and head"
                of_key = (serving.view.name, generation.keys.stem, read.key)
                state = (found, self.log.incarnation, self._extent(generation, read.key, found))
                if is_everything or self._checked.get(of_key) != state:
                    self._check_entity(serving, read.key, found, as_of_ms)
                    self._checked[of_key] = state

    def _check_entity(self, serving: ServingView, key: bytes, found: EntityBytes, as_of_ms: int) -> None:
        """One answer."""
        view, generation = serving.view, serving.generation
        if (generation.keys.stem, key) in self.unknowable:
            return
        if view.retention_ms is not None and as_of_ms < self.now_ms() - view.lookback_ms:
            # What has expired by now is not there, and nobody says that it was.
            self.counts["read of what may have expired"] += 1
            return
        try:
            selection = self._selection(serving)
            answer = selection.answer(selection.decode(found.body, found.head), as_of_ms)
        except CorruptData:
            self.counts["read refused: damaged"] += 1
            return
        except AsOfTooOld:
            self.counts["read refused: too old"] += 1
            return
        extent = self._extent(generation, key, found)
        letters = {position for name, position in self.letters if name in ("", generation.view.name)}
        right = possibilities(self.log, view, key, extent, letters, as_of_ms)
        if right is None:
            self.counts["answer with too many possibilities"] += 1
            return
        actual = answer_values(view, answer)
        self.counts["answer compared"] += 1
        self.counts["answer compared: by itself" if serving.is_apart else "answer compared: in a storage group"] += 1
        self.counts["answer compared: found" if answer.found else "answer compared: not found"] += 1
        if found.body is not None:
            of = "in a pack" if is_member(found.body) else "with a body"
            self.counts[f"answer compared: {of}"] += 1
            if generation.packs and not is_member(found.body):
                self.counts["answer compared: of an entity that left its pack"] += 1
        if len(right) > 1:
            self.counts["answer of several possible ones"] += 1
        for one in right:
            if one.is_found == answer.found and all(
                agrees(one.values[name], value, scale=1_000.0) for name, value in actual.items()
            ):
                return
        expected = " or ".join(f"{dict(one.values)}" for one in right[:3])
        raise WrongAnswer(
            f"{generation.keys.stem} ({generation.state}) {key!r} at {as_of_ms}: {actual}, expected {expected}; "
            f"applied {dict(extent)}"
        )

    def _selection(self, serving: ServingView) -> Selection:
        """Reads every feature of a view; the stem of its keys has the definition."""
        of_view = (serving.view.name, serving.generation.keys.stem)
        if of_view not in self._selections:
            self._selections[of_view] = all_of(serving)
        return self._selections[of_view]

    def _extent(self, generation: Generation, key: bytes, found: EntityBytes) -> Mapping[Place, tuple[int, int]]:
        """What the checkpoint says was applied."""
        assert self.served is not None, "somebody has looked"
        name = generation.keys.checkpoint(lane_of(key, self.served.lane_count))
        extent = {}
        for _, number, offset in self.checkpoint(name, found.checkpoint).positions:
            incarnation, first = self.begins[name, number]
            extent[Place(incarnation, number)] = (first, offset)
        return extent

    def checkpoint(self, name: bytes, stored: bytes | None) -> Checkpoint:
        """What a lane has applied; one whose checkpoint is lost or spoilt is not written any more, and stays so."""
        try:
            if stored is not None:
                return decode_checkpoint(stored)
        except CorruptData:
            pass
        return decode_checkpoint(self.lost_checkpoints.get(name))
