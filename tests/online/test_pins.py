"""Pinned versions: whatever becomes of a view, what a service has pinned is answered by its very definition."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.core.spec import PinnedView, RepoSpec, ViewSpec
from featurestore.definitions.compile.versions import stored_as, stored_name, stored_views
from featurestore.online.generation import GenerationState
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.read.store_status import look_over
from featurestore.online.redis.store import RedisStore, connect
from featurestore.online.registration import MERGE_AFTER_MS, lost_versions, register_views
from featurestore.online.serving_view import definition_of, served_definitions
from featurestore.online.write.lanes import open_lanes
from featurestore.testing.clock import ManualClock
from featurestore.wire.codecs.view_json import definition_hash
from tests.online.test_registration import GROUP, LANES, view_of

OLD, NEW = view_of("counts", 1, 24), view_of("counts", 2)
ALONE = replace(OLD, is_apart=True)
OTHER = view_of("sums", 2)


class Repo:
    """What is registered and pinned, and a stream that does as it should."""

    def __init__(self, store: RedisStore, *views: ViewSpec) -> None:
        self.store = store
        self.catalog = GenerationCatalog(store, "tests")
        self.catalog.lane_count(LANES)
        self.clock = ManualClock()
        self.spec = RepoSpec("tests", views, (), ())
        self.plan()
        self.catch_up()

    def apply(self, *views: ViewSpec, pins: tuple[ViewSpec, ...] = ()) -> None:
        """Other definitions, and versions that are pinned."""
        pinned = tuple(
            PinnedView(replace(view, name=f"{view.name}@v{number}"), ("model",)) for number, view in enumerate(pins)
        )
        self.spec = RepoSpec("tests", views, (), (), pinned=pinned)
        self.plan()

    def plan(self) -> None:
        """The stream is planned, and opens what it is to feed."""
        names = register_views(self.catalog, stored_views(self.spec), self.clock.now_ms())
        for one in self.catalog.all().values():
            for generation in one:
                if generation.state.is_fed:
                    assert generation.view.name in names, "what serves or fills is fed"
                    open_lanes(self.store, generation, LANES, self.clock.now_ms())

    def catch_up(self) -> None:
        """Everything that fills has caught up, in some order, and serves as soon as it may."""
        for _ in range(3):
            filling = [
                one
                for generations in self.catalog.all().values()
                for one in generations
                if one.state is GenerationState.FILLING
            ]
            for one in filling:
                if not lost_versions(self.catalog.all(), one.view.name, one, stored_views(self.spec)):
                    self.catalog.promote(one)
                    self.plan()

    def settle(self) -> None:
        """So much time goes by that what is stored alone is merged."""
        for _ in range(3):
            self.clock.advance_ms(MERGE_AFTER_MS)
            self.plan()
            self.catch_up()

    def answered_by(self, view: ViewSpec) -> list[str]:
        """Names of what is stored that answers for a definition."""
        found = served_definitions(self.catalog.all()).get(definition_of(view), ())
        return [one.generation.view.name for one in found]


@pytest.fixture
def store(redis_url: str) -> Iterator[RedisStore]:
    """An empty online store."""
    connected = connect(redis_url)
    yield connected
    connected.close()


def test_a_version_is_stored_under_its_hash_once_whoever_pins_it() -> None:
    """Feast gives many numbers to one definition; one that is registered is not stored twice."""
    pinned = tuple(PinnedView(replace(OLD, name=f"counts@v{number}"), ("model",)) for number in (0, 3))
    repo = RepoSpec("tests", (NEW, OTHER), (), (), pinned=pinned)

    assert ["counts", "sums", stored_name(OLD)] == [view.name for view in stored_views(repo)]
    assert {definition_hash(OLD)} == {definition_hash(one.view) for one in pinned}
    assert definition_hash(OLD) == definition_hash(stored_views(repo)[-1])
    assert (stored_name(OLD), stored_name(OLD), "counts") == tuple(
        stored_as(repo, name) for name in ("counts@v0", "counts@v3", "counts")
    )
    assert ("counts", "sums") == tuple(view.name for view in stored_views(replace(repo, views=(OLD, OTHER))))
    assert "counts" == stored_as(replace(repo, views=(OLD, OTHER)), "counts@v3")


def test_a_view_that_is_stored_alone_waits_until_its_pinned_version_serves_by_itself(store: RedisStore) -> None:
    """The old generation answers for the version until then, and retires after that."""
    repo = Repo(store, ALONE)
    repo.apply(replace(NEW, is_apart=True), pins=(ALONE,))
    new, version = repo.catalog.generations("counts")[1], stored_name(ALONE)

    assert ["counts"] == repo.answered_by(ALONE)
    assert [version] == lost_versions(repo.catalog.all(), "counts", new, stored_views(repo.spec))
    repo.catch_up()
    assert ([version], ["counts"]) == (repo.answered_by(ALONE), repo.answered_by(replace(NEW, is_apart=True)))
    assert [GenerationState.RETIRED, GenerationState.SERVING] == [
        one.state for one in repo.catalog.generations("counts")
    ]


def test_a_group_takes_a_pinned_version_in_as_one_more_member(store: RedisStore) -> None:
    """It answers for the version as the view that it was, and then beside what the view is now; nothing fills twice."""
    repo = Repo(store, OLD, OTHER)
    repo.apply(NEW, OTHER, pins=(OLD,))
    repo.catch_up()

    assert ([GROUP], ["counts"]) == (repo.answered_by(OLD), repo.answered_by(NEW))
    assert () == repo.catalog.generations(stored_name(OLD))
    repo.settle()
    assert ([GROUP], [GROUP]) == (repo.answered_by(OLD), repo.answered_by(NEW))
    serving = repo.catalog.serving(GROUP)
    assert serving is not None
    assert ["counts", stored_name(OLD), "sums"] == [member.name for member in serving.view.members]


def test_a_version_that_is_the_view_again_is_answered_all_the_while(store: RedisStore) -> None:
    """What was kept for the pin goes on until the view's own generation serves."""
    repo = Repo(store, ALONE)
    repo.apply(replace(NEW, is_apart=True), pins=(ALONE,))
    repo.catch_up()
    repo.apply(ALONE, pins=(ALONE,))

    assert [stored_name(ALONE)] == repo.answered_by(ALONE)
    repo.catch_up()
    assert ["counts"] == repo.answered_by(ALONE)


def test_what_nobody_pins_any_more_retires(store: RedisStore) -> None:
    """A pin is a fact of the registry, and of nothing else."""
    repo = Repo(store, ALONE)
    repo.apply(replace(NEW, is_apart=True), pins=(ALONE,))
    repo.catch_up()
    repo.apply(replace(NEW, is_apart=True))

    assert [] == repo.answered_by(ALONE)
    assert [GenerationState.RETIRED] == [one.state for one in repo.catalog.generations(stored_name(ALONE))]


def test_the_overview_tells_who_pins_what_and_what_answers(store: RedisStore) -> None:
    """A version that nothing serves is not ready, and never another one's."""
    repo = Repo(store, ALONE)
    repo.apply(ALONE, pins=(ALONE, view_of("counts", 7)))

    seen = look_over(store, "tests", repo.clock, registered=stored_views(repo.spec), pinned=repo.spec.pinned)
    assert [("counts@v0", "counts", 1), ("counts@v1", "", 0)] == [
        (one.version, one.stored_as, one.number) for one in seen.pins
    ]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=6))
def test_what_was_answered_while_it_is_pinned_is_answered_from_then_on(
    store: RedisStore, steps: list[tuple[int, bool, bool, bool]]
) -> None:
    """Whatever is applied, in groups or alone, merged or not: a pin that was ready once stays ready."""
    store.delete(list(store.scan(b"*")))
    definitions = [OLD, NEW, view_of("counts", 5)]
    repo = Repo(store, OLD, OTHER)
    for number, is_apart, has_other, settles in steps:
        views = [replace(definitions[number], is_apart=is_apart), *([OTHER] if has_other else [])]
        repo.apply(*views, pins=(OLD,))
        assert repo.answered_by(OLD)
        for one in [one for known in repo.catalog.all().values() for one in known if one.state.name == "FILLING"]:
            if not lost_versions(repo.catalog.all(), one.view.name, one, stored_views(repo.spec)):
                repo.catalog.promote(one)
                assert repo.answered_by(OLD)
                repo.plan()
                assert repo.answered_by(OLD)
        if settles:
            repo.settle()
            assert repo.answered_by(OLD)
    repo.catch_up()
    repo.plan()
    assert repo.answered_by(definitions[steps[-1][0]])
