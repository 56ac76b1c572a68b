"""Small heads and packs, few lanes and tokens that repeat: what makes schedules short, and failures repeatable."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.read import serving_generations
from featurestore.online.write import bootstrap, bootstrap_fold, compaction, new_rows, pack_folding, writer
from featurestore.testing.simulation.process import LANES
from featurestore.testing.simulation.stand_ins.disk import Disk

HEAD_ROWS_MAX = 2
"""So few that heads are folded all the time."""

PACK_HEAD_BYTES_MAX = 150
"""Two records or so."""

ENTITY_ROWS_MAX, PACK_ROWS_MAX = 2, 4
"""So few that entities leave packs all the time, small ones too."""


class _Tokens:
    """`secrets`, with the same tokens in every run."""

    def __init__(self) -> None:
        self._count = 0

    def token_hex(self, byte_count: int) -> str:
        """Another one each time."""
        self._count += 1
        return f"{self._count:0{2 * byte_count}x}"


@contextmanager
def small_world() -> Iterator[Disk]:
    """Small heads and packs, few lanes, tokens that repeat from run to run, and a disk that may be full."""
    disk, tokens = Disk(), _Tokens()
    with ExitStack() as stack:
        for module in (compaction, bootstrap_fold):
            stack.enter_context(patch.object(module, "HEAD_ROWS_MAX", HEAD_ROWS_MAX))
        stack.enter_context(patch.object(new_rows, "PACK_HEAD_BYTES_MAX", PACK_HEAD_BYTES_MAX))
        stack.enter_context(patch.object(pack_folding, "ENTITY_ROWS_MAX", ENTITY_ROWS_MAX))
        stack.enter_context(patch.object(pack_folding, "PACK_ROWS_MAX", PACK_ROWS_MAX))
        for module in (writer, bootstrap):
            stack.enter_context(patch.object(module, "secrets", tokens))
        stack.enter_context(patch.object(bootstrap, "COMMIT_ENTITIES", 1))
        stack.enter_context(patch.object(GenerationCatalog.lane_count, "__defaults__", (LANES,)))
        stack.enter_context(patch.object(serving_generations, "DEFAULT_LANE_COUNT", LANES))
        # What a loss of power does to files is not simulated here, and waiting for disks is most of the time else.
        stack.enter_context(patch.object(os, "fsync", lambda descriptor: None))
        stack.enter_context(patch.object(os, "write", disk.write))
        yield disk
