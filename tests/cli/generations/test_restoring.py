"""Erasures on record are applied again where a store or a log was lost, or came back from a copy."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from featurestore.cli.generations.restoring import due, of_event_logs, restore
from featurestore.core.spec import Column, RepoSpec, ValueType
from featurestore.offline.event_log.address import place_of
from featurestore.offline.event_log.erasing import erase_rows, remaining_rows
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.redis.store import RedisStore
from featurestore.online.write.erasure.book import ErasureBook
from featurestore.testing.clock import ManualClock
from tests.offline.event_log.event_logs import BEGIN_MS, TOPIC, open_writer, read_of
from tests.offline.event_log.test_erasing import CARD, ERASURE
from tests.online.write.writing import LANES, PROJECT, view_of


def test_what_one_place_knows_is_applied_to_the_others(tmp_path: Path, redis_url: str) -> None:
    """A store that is empty learns from the log; a log of before from the store; and then nothing is due."""
    store, clock, root = RedisStore(redis_url), ManualClock(now_ms=BEGIN_MS), tmp_path / "logs"
    view = view_of()
    card = Column("card", ValueType.STRING)
    view = replace(view, source=replace(view.source, columns=(*view.source.columns, card)), join_keys=(card,))
    repo = RepoSpec(PROJECT, views=(view,), plain_views=(), services=())
    place = place_of(root / view.source.name)
    open_writer(place).commit({(TOPIC, 0): [read_of(0, 800)]})
    shutil.copytree(root / view.source.name, tmp_path / "copy")
    erased = erase_rows(place, ERASURE, CARD, clock)
    GenerationCatalog(store, PROJECT).lane_count(LANES)

    assert due(str(root), repo, store) == {"online store": 1}
    restore(store, repo, of_event_logs(str(root), repo), [], clock, print)
    assert due(str(root), repo, store) == {}
    assert ErasureBook(store, PROJECT).find("card", CARD.encode()) == ERASURE

    shutil.rmtree(root / view.source.name)
    shutil.move(tmp_path / "copy", root / view.source.name)
    [(lacking, count)] = due(str(root), repo, store).items()
    _, [report] = restore(store, repo, of_event_logs(str(root), repo), [], clock, print)

    assert (lacking.startswith("event log"), count) == (True, 1)
    assert (report.count, remaining_rows(place, ERASURE, CARD)) == (erased.rows, 0)
    assert due(str(root), repo, store) == {}
    store.close()
