"""Views come, change and leave: each is answered all the while, by itself or with its storage group."""

from __future__ import annotations

from dataclasses import replace

import pytest

from featurestore.core.spec import Column, FeatureSpec, ValueType, ViewSpec, Window
from featurestore.errors import InvalidRequest
from featurestore.online.generation import Generation, GenerationState
from featurestore.online.generation_catalog import LOOKS_AT_ALL, GenerationCatalog
from featurestore.online.read.store_status import look_over
from featurestore.online.redis.store import RedisStore, connect
from featurestore.online.registration import MERGE_AFTER_MS, bootstrap_target, due_merges, register_views
from featurestore.online.serving_view import serving_views
from featurestore.online.write.lanes import open_lanes
from featurestore.testing.clock import ManualClock
from featurestore.testing.strategies import DAY_MS, SOURCE
from featurestore.wire.codecs.view_json import definition_hash
from featurestore.wire.store_layout import generations_key

LANES = 2
GROUP = "events:card_id"


def view_of(name: str, *hours: int, where: str = "", is_apart: bool = False) -> ViewSpec:
    """Counts over some hours, by card."""
    features = tuple(
        FeatureSpec(f"{name}_{length}h", "count", None, Window(length * 3_600_000, 60_000), ValueType.INT64)
        for length in hours
    )
    keys = (Column("card_id", ValueType.STRING),)
    return ViewSpec(name, keys, SOURCE, features, 2 * DAY_MS, where=where, is_apart=is_apart)


class Registry:
    """What is registered, and a stream that does as it should."""

    def __init__(self, store: RedisStore, *views: ViewSpec) -> None:
        self.store = store
        self.catalog = GenerationCatalog(store, "tests")
        self.catalog.lane_count(LANES)
        self.clock = ManualClock()
        self.views = {view.name: view for view in views}

    def plan(self) -> frozenset[str]:
        """The stream is planned, and opens what it is to feed."""
        names = register_views(self.catalog, self.views.values(), self.clock.now_ms())
        for one in self.fed():
            open_lanes(self.store, one, LANES, self.clock.now_ms())
        return names

    def catch_up(self) -> None:
        """Everything that fills serves, and the stream is planned again."""
        for one in self.fed():
            if one.state is GenerationState.FILLING:
                self.catalog.promote(one)
        self.plan()

    def settle(self) -> None:
        """So much time goes by that what is stored alone is merged."""
        for _ in range(3):
            self.clock.advance_ms(MERGE_AFTER_MS)
            self.plan()
            self.catch_up()

    def apply(self, *views: ViewSpec) -> None:
        """Other definitions."""
        self.views.update((view.name, view) for view in views)
        self.plan()

    def fed(self) -> list[Generation]:
        """What the stream feeds."""
        return [one for generations in self.catalog.all().values() for one in generations if one.state.is_fed]

    def answers(self) -> dict[str, tuple[str, bool]]:
        """For each view what is read, and whether that is the registered definition."""
        serving = serving_views(self.catalog.all())
        return {
            name: (serving[name].generation.view.name, serving[name].definition_hash == definition_hash(view))
            for name, view in self.views.items()
            if name in serving
        }


COUNTS, SUMS = view_of("counts", 1, 24), view_of("sums", 2)
DECLINES = view_of("declines", 3, where="is_declined")


@pytest.fixture
def registry(store: RedisStore) -> Registry:
    """Three views that were registered together, and serve."""
    registered = Registry(store, COUNTS, SUMS, DECLINES)
    registered.plan()
    registered.catch_up()
    return registered


def test_views_of_a_new_store_are_stored_together_at_once(registry: Registry) -> None:
    """One generation, for all of them."""
    assert dict.fromkeys(("counts", "sums", "declines"), (GROUP, True)) == registry.answers()
    assert [GROUP] == [one.view.name for one in registry.fed()]
    assert frozenset({GROUP}) == registry.plan(), "planning again changes nothing"
    assert [GROUP] == [one.view.name for one in registry.fed()]


def test_a_new_view_disturbs_nobody_and_is_merged_later(registry: Registry) -> None:
    """By itself first; the group fills anew beside the one that serves, and then answers for all."""
    before = registry.fed()
    registry.apply(added := view_of("added", 5))

    assert before == [one for one in registry.fed() if one.view.name == GROUP], "the group goes on as it was"
    assert "added" not in registry.answers()
    registry.catch_up()
    assert ("added", True) == registry.answers()["added"]
    assert not due_merges(registry.catalog.all(), list(registry.views.values()), registry.clock.now_ms())
    registry.clock.advance_ms(MERGE_AFTER_MS)
    assert [GROUP] == due_merges(registry.catalog.all(), list(registry.views.values()), registry.clock.now_ms())
    registry.plan()
    assert [GenerationState.SERVING, GenerationState.FILLING] == [
        one.state for one in registry.catalog.generations(GROUP)
    ]
    assert ("added", True) == registry.answers()["added"]
    registry.catch_up()
    assert {(GROUP, True)} == set(registry.answers().values())
    assert [GROUP] == [one.view.name for one in registry.fed()], "its own generation is fed no more"
    assert {view.name for view in (COUNTS, SUMS, DECLINES, added)} == {
        member.name for member in registry.fed()[0].view.members
    }


def test_a_changed_view_is_answered_by_its_old_definition_until_the_new_one_serves(registry: Registry) -> None:
    """Nobody waits, and the others stay where they are."""
    registry.apply(view_of("sums", 2, 6))

    assert (GROUP, False) == registry.answers()["sums"]
    registry.catch_up()
    assert {"sums": ("sums", True), "counts": (GROUP, True), "declines": (GROUP, True)} == registry.answers()
    registry.settle()
    assert {(GROUP, True)} == set(registry.answers().values())


def test_changes_while_the_group_fills_are_merged_by_the_next_one(registry: Registry) -> None:
    """What fills is let finish."""
    registry.apply(view_of("added", 5))
    registry.catch_up()
    registry.clock.advance_ms(MERGE_AFTER_MS)
    registry.plan()
    filling = registry.catalog.generations(GROUP)[-1]
    registry.apply(view_of("sums", 7))

    assert filling in registry.fed()
    registry.catch_up()
    assert {"added": (GROUP, True), "sums": ("sums", True)} == {
        name: found for name, found in registry.answers().items() if name in ("added", "sums")
    }
    registry.settle()
    assert {(GROUP, True)} == set(registry.answers().values())


def test_views_that_were_stored_by_themselves_are_merged_without_an_outage(store: RedisStore) -> None:
    """As the release before stored them: each answers until the group does."""
    registry = Registry(store, *(replace(view, is_apart=True) for view in (COUNTS, SUMS, DECLINES)))
    registry.plan()
    registry.catch_up()
    registry.apply(COUNTS, SUMS, DECLINES)

    assert {name: (name, True) for name in registry.views} == registry.answers()
    registry.clock.advance_ms(MERGE_AFTER_MS)
    registry.plan()
    assert {name: (name, True) for name in registry.views} == registry.answers()
    registry.catch_up()
    assert {(GROUP, True)} == set(registry.answers().values())


def test_a_view_that_is_wanted_apart_leaves_when_it_serves_by_itself(registry: Registry) -> None:
    """The group answers for it until then, and is without it after the next merge."""
    registry.apply(replace(SUMS, is_apart=True))

    assert (GROUP, True) == registry.answers()["sums"]
    registry.catch_up()
    assert ("sums", True) == registry.answers()["sums"]
    registry.settle()
    assert {"sums": ("sums", True), "counts": (GROUP, True), "declines": (GROUP, True)} == registry.answers()
    [group] = [one for one in registry.fed() if one.view.members]
    assert ["counts", "declines"] == [member.name for member in group.view.members]


def test_the_last_view_of_a_group_is_stored_by_itself(registry: Registry) -> None:
    """The group answers until that serves, and retires then."""
    del registry.views["sums"], registry.views["declines"]
    registry.plan()

    assert {"counts": (GROUP, True)} == registry.answers()
    registry.catch_up()
    assert {"counts": ("counts", True)} == registry.answers()
    assert ["counts"] == [one.view.name for one in registry.fed()]


def test_nothing_of_views_that_left_is_fed(registry: Registry) -> None:
    """All of a group."""
    registry.views.clear()

    assert not registry.plan()
    assert not registry.fed()


def test_a_changed_view_rolls_back_to_its_group(registry: Registry) -> None:
    """And stays there until it is changed again; the group does not take the definition in that was rolled back."""
    registry.apply(view_of("sums", 2, 6))
    registry.catch_up()
    serves, away = registry.catalog.roll_back("sums")

    assert (GROUP, "sums") == (serves.view.name, away.view.name)
    registry.settle()
    assert (GROUP, False) == registry.answers()["sums"]
    registry.apply(SUMS)
    registry.settle()
    assert {(GROUP, True)} == set(registry.answers().values())


def test_a_merge_is_rolled_back_like_any_generation(registry: Registry) -> None:
    """What the earlier one does not hold as it is registered is stored by itself again; nothing is merged again."""
    registry.apply(view_of("sums", 2, 6))
    registry.catch_up()
    registry.settle()
    with pytest.raises(InvalidRequest, match=f'is stored in storage group "{GROUP}"'):
        registry.catalog.roll_back("sums")
    registry.catalog.roll_back(GROUP)
    registry.plan()

    assert (GROUP, False) == registry.answers()["sums"]
    registry.catch_up()
    assert {"sums": ("sums", True), "counts": (GROUP, True), "declines": (GROUP, True)} == registry.answers()
    registry.settle()
    assert ("sums", True) == registry.answers()["sums"]


def test_a_damaged_group_fills_anew_as_a_whole(registry: Registry) -> None:
    """Its views are not stored by themselves beside it."""
    [group] = registry.fed()
    registry.catalog.replace_damaged(group)
    registry.plan()

    assert not registry.answers()
    assert [(GROUP, 2)] == [(one.view.name, one.number) for one in registry.fed()]
    registry.catch_up()
    assert {(GROUP, True)} == set(registry.answers().values())


def test_one_of_two_that_fill_goes_on_after_a_damage(registry: Registry) -> None:
    """A batch is for one generation of a name."""
    registry.apply(view_of("added", 5))
    registry.catch_up()
    registry.clock.advance_ms(MERGE_AFTER_MS)
    registry.plan()
    serving, filling = registry.catalog.generations(GROUP)
    registry.catalog.replace_damaged(serving)
    registry.plan()

    assert [filling] == [one for one in registry.fed() if one.view.name == GROUP]


def test_a_bootstrap_computes_a_view_or_its_group(registry: Registry) -> None:
    """A view that the group has as it is registered is not computed apart from it."""

    def target(name: str) -> str | None:
        found = bootstrap_target(registry.catalog.all(), list(registry.views.values()), name)
        return None if found is None else found.name

    assert (GROUP, GROUP, None) == (target("sums"), target(GROUP), target("unknown"))
    registry.apply(view_of("sums", 2, 6))
    assert ("sums", GROUP, GROUP) == (target("sums"), target("counts"), target(GROUP))


def test_status_shows_groups_and_their_views(registry: Registry) -> None:
    """A registered view is streamed if something holds it."""
    registry.apply(added := view_of("added", 5))
    seen = look_over(registry.store, "tests", registry.clock, registered=[*registry.views.values(), view_of("new", 1)])
    rows = {one.view: (one.views, one.is_registered_definition) for one in seen.generations}

    assert {GROUP: (("counts", "declines", "sums"), False), added.name: (("added",), True)} == rows
    assert ("new",) == seen.unstreamed


def test_generations_that_have_not_changed_are_not_read_again(redis_url: str) -> None:
    """A poll asks for a version; a change by anybody is seen at once, an older release's within some looks."""
    store = connect(redis_url)
    registry = Registry(store, COUNTS, SUMS)
    registry.plan()
    reader = GenerationCatalog(store, "tests")
    reader.all()

    def reads() -> int:
        return int(store._client().info("commandstats").get("cmdstat_hgetall", {"calls": 0})["calls"])

    before = reads()
    assert [reader.all() for _ in range(20)] == [registry.catalog.all()] * 20
    assert reads() <= before + 1
    registry.apply(view_of("sums", 9))
    assert registry.catalog.all() == reader.all()
    key = generations_key("tests")
    store._client().hset(key, b"sums", b"[]")  # an older release leaves the history as it was
    seen = [len(reader.all()["sums"]) for _ in range(LOOKS_AT_ALL)]
    assert (1, 0) == (seen[0], seen[-1])
    store._client().delete(key)
    assert not reader.all()
    store.close()
