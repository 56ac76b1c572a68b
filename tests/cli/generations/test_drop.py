"""`featurestore drop`: what is retired can be deleted for good, nothing else can; on a real Redis."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from featurestore.cli.main import main
from featurestore.errors import InvalidRequest
from featurestore.online.generation import GenerationState
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.redis.store import connect
from featurestore.testing.batches import keyed_batch
from tests.online.write.writing import LANES, PROJECT, events_of, open_writer, view_of

Capture = pytest.CaptureFixture[str]


def test_a_retired_generation_of_a_lifetime_view_is_listed_and_dropped(
    redis_url: str, tmp_path: Path, capsys: Capture
) -> None:
    """All of its keys go and none of the serving one's; a second time there is nothing to drop."""
    store = connect(redis_url)
    options = ["--registry", str(tmp_path / "registry.db"), "--project", PROJECT, "--store-url", redis_url]
    old_view = view_of(retention_ms=None)
    new_view = replace(view_of(60_000, retention_ms=None), name=old_view.name)
    for view in (old_view, new_view):
        writer = open_writer(store, view)
        writer.write([keyed_batch(view, events_of(500, keys=7), lane_count=LANES)])
    catalog = GenerationCatalog(store, PROJECT)
    old, new = catalog.generations(old_view.name)

    assert main(["drop", old_view.name, *options]) == 0
    assert "card_activity has no retired generation" in capsys.readouterr().out
    for number, state in ((1, "serving"), (2, "filling")):
        assert main(["drop", old_view.name, "--generation", str(number), *options]) == 1
        said = capsys.readouterr().err
        assert f'generation {number} of feature view "card_activity" is {state}, not retired' in said
        assert "nothing of card_activity can be dropped" in said

    catalog.promote(new)
    before = {key for lane in range(LANES) for key in store.scan(old.keys.pattern(lane))}
    kept = {key for lane in range(LANES) for key in store.scan(new.keys.pattern(lane))}
    assert len(before) > 7

    assert main(["drop", old_view.name, *options]) == 0
    assert (
        "card_activity@1  retired, kept until it is dropped, `featurestore rollback` returns to it"
        in capsys.readouterr().out
    )
    assert before == {key for lane in range(LANES) for key in store.scan(old.keys.pattern(lane))}

    assert main(["drop", old_view.name, "--generation", "1", *options]) == 0
    assert f"card_activity@1 is dropped: {len(before):,} keys" in capsys.readouterr().out
    assert not {key for lane in range(LANES) for key in store.scan(old.keys.pattern(lane))}
    assert kept == {key for lane in range(LANES) for key in store.scan(new.keys.pattern(lane))}
    assert [(2, GenerationState.SERVING)] == [(one.number, one.state) for one in catalog.generations(old_view.name)]

    assert main(["drop", old_view.name, "--generation", "1", *options]) == 1
    assert 'there is no generation 1 of feature view "card_activity"' in capsys.readouterr().err
    store.close()


def test_nothing_rolls_back_to_a_generation_that_is_being_dropped(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rollback in the middle of the deletion is refused; it would let a generation without keys serve."""
    store = connect(redis_url)
    catalog = GenerationCatalog(store, PROJECT)
    for view in (view_of(), view_of(60_000)):
        open_writer(store, view)
    old, new = catalog.generations("card_activity")
    catalog.promote(new)
    delete = store.delete

    def delete_after_a_rollback(keys: Iterable[bytes]) -> int:
        with pytest.raises(InvalidRequest, match="no earlier generation"):
            catalog.roll_back("card_activity")
        return delete(keys)

    monkeypatch.setattr(store, "delete", delete_after_a_rollback)
    catalog.drop(next(one for one in catalog.generations("card_activity") if one.number == old.number))

    assert [(2, GenerationState.SERVING)] == [(one.number, one.state) for one in catalog.generations("card_activity")]
    store.close()


def test_a_view_that_the_store_does_not_hold_is_named(redis_url: str, tmp_path: Path, capsys: Capture) -> None:
    """With the views that it does hold."""
    store = connect(redis_url)
    open_writer(store, view_of())
    store.close()
    options = ["--registry", str(tmp_path / "registry.db"), "--project", PROJECT, "--store-url", redis_url]

    assert main(["drop", "card_activty", *options]) == 1
    said = capsys.readouterr().err
    assert 'the online store holds no stream feature view or storage group "card_activty"' in said
    assert 'did you mean "card_activity"?' in said
