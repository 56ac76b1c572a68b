"""`featurestore lookup --compare`: what two versions of a view say of the same entities, feature by feature.

Read from the store and not from a server: both definitions are answered from one read, as of one moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from featurestore.cli.narrow_table import narrow_table
from featurestore.cli.settings import Settings, open_running_store, print_json
from featurestore.errors import InvalidRequest

if TYPE_CHECKING:
    from featurestore.core.spec import ServiceSpec, ViewSpec
    from featurestore.online.answer.comparison import Comparison
    from featurestore.online.generation import Generation
    from featurestore.online.redis.store import RedisStore
    from featurestore.serving.catalog.catalog import CatalogSnapshot

LATEST = "latest"
ROWS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class CompareRequest:
    """What is compared.

    Attributes:
        service: the feature service whose features are compared.
        versions: two of "v1", "latest", "view@v1", "view@latest".
        entities: join key -> texts, as many as rows; empty for a sample of those that the store has.
        sample: how many of these.
        as_of_ms: read time; None for the clock's.
    """

    service: str
    versions: tuple[str, str]
    entities: Mapping[str, Sequence[str]]
    sample: int
    as_of_ms: int | None


def compare(settings: Settings, request: CompareRequest, output: str) -> None:
    """Compare, and show.

    Raises:
        InvalidRequest: a version is not pinned or not ready, or the entities are not those of the view.
    """
    from featurestore.clock import Deadline, SystemClock
    from featurestore.definitions.registry import open_registry
    from featurestore.online.answer.comparison import Comparison
    from featurestore.serving.catalog.catalog import CatalogSource

    clock = SystemClock()
    as_of_ms = clock.now_ms() if request.as_of_ms is None else request.as_of_ms
    store = open_running_store(settings)
    try:
        snapshot = CatalogSource(open_registry(settings.registry, settings.project), store).snapshot()
        left, right = _names(snapshot, request)
        features = _features(snapshot, request.service, left, right)
        texts = [f"{view}:{feature}" for feature in features for view in (left, right)]
        plan = snapshot.plan_of_references(texts, full_names=True)
        comparison = Comparison(plan, {feature: (2 * at, 2 * at + 1) for at, feature in enumerate(features)})
        keys = [key.name for key in plan.schema.join_keys]
        generation = snapshot.serving[left].generation
        rows = _given(plan.schema.join_keys, request) if request.entities else None
        rows = rows or list(islice(_stored(store, generation, snapshot.lane_count), request.sample))
        for first in range(0, len(rows), ROWS_AT_ONCE):
            some = rows[first : first + ROWS_AT_ONCE]
            columns = [[row[at] for row in some] for at in range(len(keys))]
            comparison.add(snapshot.reader, columns, len(some), as_of_ms, Deadline(clock))
    finally:
        store.close()
    show(comparison, (left, right), [dict(zip(keys, row, strict=True)) for row in rows], as_of_ms, output)


def _names(snapshot: CatalogSnapshot, request: CompareRequest) -> tuple[str, str]:
    """Both sides as views are named: "card_activity@v1", or "card_activity" for what it is now."""
    from featurestore.wire.codecs.view_json import base_name

    service = _service(snapshot, request.service)
    stream_views = dict.fromkeys(base_name(one.view) for one in service.features if snapshot.repo.view(one.view))
    names = []
    for text in request.versions:
        view, at, version = text.rpartition("@")
        if not at and len(stream_views) != 1:
            raise InvalidRequest(
                f'feature service "{service.name}" has {len(stream_views)} stream views, and "{text}" names none',
                hint=f"write VIEW@{text}, of {', '.join(stream_views)}",
            )
        view = view or next(iter(stream_views))
        if view not in stream_views:
            raise InvalidRequest(
                f'feature service "{service.name}" has no stream view "{view}"',
                hint=f"it has {', '.join(stream_views)}",
            )
        names.append(view if version == LATEST else f"{view}@{version}")
    left, right = names
    if base_name(left) != base_name(right) or left == right:
        raise InvalidRequest(f"{left} and {right} are not two versions of one view", hint="compare v1 with latest, say")
    return left, right


def _service(snapshot: CatalogSnapshot, name: str) -> ServiceSpec:
    """The feature service; unknown ones are told with near names."""
    snapshot.plan_of_service(name)
    service = snapshot.repo.service(name)
    assert service is not None, "it has a plan"
    return service


def _features(snapshot: CatalogSnapshot, service_name: str, left: str, right: str) -> list[str]:
    """The service's features of the view that both versions have; both must be ready."""
    from featurestore.wire.codecs.view_json import base_name, definition_hash

    views: list[ViewSpec] = []
    for name in (left, right):
        view = snapshot.repo.view(name)
        if view is None:
            pinned = ", ".join(
                one.view.name for one in snapshot.repo.pinned if base_name(one.view.name) == base_name(name)
            )
            raise InvalidRequest(
                f"{name} is not pinned, so nothing keeps it up to date",
                hint=f"pinned are {pinned}" if pinned else "let a feature service pin it, and apply",
            )
        serving = snapshot.serving.get(name)
        if serving is None or serving.definition_hash != definition_hash(view):
            raise InvalidRequest(f"{name} is not ready", hint="see `featurestore status`; the stream fills it")
        views.append(view)
    known = [{answer.name for answer in view.answers} for view in views]
    service = _service(snapshot, service_name)
    asked = dict.fromkeys(one.feature for one in service.features if base_name(one.view) == base_name(left))
    both = [feature for feature in asked if all(feature in names for names in known)]
    if not both:
        raise InvalidRequest(f'{left} and {right} have no feature of "{service_name}" in common')
    return both


def _given(join_keys: Sequence[Any], request: CompareRequest) -> list[tuple[Any, ...]]:
    """The rows that were typed, one value of each join key."""
    from featurestore.core.spec import ValueType

    columns: list[list[Any]] = []
    for key in join_keys:
        texts = request.entities.get(key.name)
        if texts is None:
            raise InvalidRequest(f'join key "{key.name}" is missing', hint=f"give {key.name}=VALUE")
        try:
            columns.append([int(text) if key.type is ValueType.INT64 else text for text in texts])
        except ValueError:
            raise click.UsageError(f'join key "{key.name}" is an integer, and one of its values is not') from None
    return list(zip(*columns, strict=True))


def _stored(store: RedisStore, generation: Generation, lane_count: int) -> Iterator[tuple[Any, ...]]:
    """Entities that the store has, in the order of its hashes, which is as good as any."""
    from featurestore.wire.entity_key import decode_key

    seen: set[bytes] = set()
    for lane in range(lane_count):
        prefixes = (generation.keys.body_prefix(lane), generation.keys.head_prefix(lane))
        for key in store.scan(generation.keys.pattern(lane)):
            entity = next((key[len(prefix) :] for prefix in prefixes if key.startswith(prefix)), None)
            if entity is not None and entity not in seen:
                seen.add(entity)
                yield decode_key(entity, generation.view.join_keys)


def show(
    comparison: Comparison, names: tuple[str, str], entities: Sequence[Mapping[str, object]], as_of_ms: int, output: str
) -> None:
    """A table of 80 columns, or JSON."""
    found = list(comparison.features.values())
    whose = [None if one.largest_at < 0 else entities[one.largest_at] for one in found]
    if output == "json":
        rows = [{**asdict(one), "largest_at": at} for one, at in zip(found, whose, strict=True)]
        print_json({"versions": names, "as_of_ms": as_of_ms, "rows": len(entities), "features": rows})
        return
    from rich.console import Console

    left, right = names
    table = narrow_table(
        f"{left} and {right}, {len(entities):,} entities",
        texts=("feature", "largest at"),
        numbers=("differ", "largest\ndifference", "null\nbefore", "null\nafter"),
    )
    for one, at in sorted(zip(found, whose, strict=True), key=lambda pair: -pair[0].differing):
        share = max(one.rows, 1)
        table.add_row(
            one.feature,
            "-" if at is None else ",".join(str(value) for value in at.values())[:16],
            f"{one.differing:,}",
            "-" if one.largest is None else f"{one.largest:,.6g}",
            f"{one.null_left / share:.1%}",
            f"{one.null_right / share:.1%}",
        )
    Console().print(table)
