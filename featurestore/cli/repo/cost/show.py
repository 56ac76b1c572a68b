"""`featurestore plan --cost`: what is stored, and what it will cost as its history tells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import click

from featurestore.cli.narrow_table import narrow_table
from featurestore.cli.repo.cost.features import ENTITIES_MAX, feature_costs
from featurestore.cli.repo.cost.history import SourceHistories, require_columns
from featurestore.cli.repo.cost.sample import take_sample
from featurestore.cli.repo.cost.storage import Spread, StorageCost, generation_of, storage_cost
from featurestore.cli.settings import print_json
from featurestore.clock import Clock
from featurestore.core.spec import ViewSpec
from featurestore.definitions.compile.storage_groups import plan_storage, storage_group
from featurestore.definitions.problems import suggest
from featurestore.errors import InvalidRequest
from featurestore.wire.store_layout import SMALL_ENTITIES_MIN, SMALL_ENTITY_BYTES

if TYPE_CHECKING:
    from rich.console import Console

SHOWN_BYTES_MIN = 0.5
"""A feature that adds less is counted with those that add nothing."""

_UNITS = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3), ("B", 1))


@dataclass(frozen=True, slots=True)
class CostRequest:
    """What is asked.

    Attributes:
        project: Feast project.
        entities: extrapolate to so many: by name of what is stored or of a view; "" for all others.
        with_features: say what each feature adds.
    """

    project: str
    entities: dict[str, int]
    with_features: bool


def show_costs(
    views: Sequence[ViewSpec], histories: SourceHistories, request: CostRequest, clock: Clock, output: str
) -> None:
    """Print what definitions cost.

    Raises:
        InvalidRequest: there is no history, it is empty, or it lacks a column; or a name is not known.
        Unavailable: the history cannot be read now.
    """
    stored = [one for one in storages(views) if histories.has(one.source)]
    _require_known(request.entities, stored)
    costs = [cost_of(one, histories, request, clock) for one in stored]
    if output == "json":
        print_json([asdict(one) for one in costs])
        return
    if not costs:
        click.echo("the repo has no stream feature views")
        return
    from rich.console import Console

    console = Console(highlight=False)
    _show_memory(console, costs)
    _show_work(console, costs)
    _show_extrapolated(console, costs)
    console.print()
    for note in _notes(costs):
        console.print(note)
    for one in costs:
        _show_features(console, one)


def storages(views: Sequence[ViewSpec]) -> list[ViewSpec]:
    """Groups, then views that are stored by themselves."""
    plan = plan_storage(views)
    groups = [storage_group(name, members) for name, members in plan.groups.items()]
    return [*groups, *sorted(plan.apart, key=lambda view: view.name)]


def _require_known(entities: dict[str, int], stored: Sequence[ViewSpec]) -> None:
    """Every name that --entities was given is one of what is stored, or a view in it."""
    known = sorted({name for one in stored for name in names_of(one)})
    for name in entities:
        if name and name not in known:
            raise InvalidRequest(f'nothing that is stored is called "{name}"', hint=suggest(name, known))


def names_of(view: ViewSpec) -> tuple[str, ...]:
    """By which a view or a group may be meant."""
    return (view.name, *(member.name for member in view.members))


def cost_of(view: ViewSpec, histories: SourceHistories, request: CostRequest, clock: Clock) -> StorageCost:
    """What one thing that is stored costs."""
    log = histories.open(view.source)
    require_columns(log, view)
    version = f", version {log.version}" if log.version else ""  # files have none
    click.echo(f"{view.name}: {log.row_count:,} rows of {log.uri}{version}", err=True)
    sample = take_sample(log, view, clock.now_ms(), tables=histories.tables)
    wanted = next((request.entities[name] for name in names_of(view) if name in request.entities), None)
    cost = storage_cost(
        generation_of(view, request.project),
        (log.uri, log.version),
        sample,
        clock,
        entities=request.entities.get("") if wanted is None else wanted,
    )
    if request.with_features and sample.part is not None:
        return replace(cost, features=feature_costs(view, request.project, sample.part, clock.now_ms()))
    return cost


def _show_memory(console: Console, costs: Sequence[StorageCost]) -> None:
    """Bytes of an entity, and of all of them."""
    table = narrow_table(
        "Redis memory, bytes of an entity",
        texts=("name",),
        numbers=("entities\nseen", "mean", "median", "p99", "they take"),
    )
    for one in costs:
        table.add_row(one.name, _count(one.entities), *_spread(one.entity_bytes), _bytes(one.memory_bytes))
        for name, spread in (("head", one.head_bytes), ("body", one.body_bytes), ("names", one.name_bytes)):
            table.add_row(f"  {name}", "", *_spread(spread), "")
    if len(costs) > 1:
        table.add_row("together", "", "", "", "", _bytes(sum(one.memory_bytes for one in costs)))
    console.print(table)


def _show_work(console: Console, costs: Sequence[StorageCost]) -> None:
    """What a second of events and a lookup take."""
    console.print()
    table = narrow_table(
        "work",
        texts=("name",),
        numbers=("events\nseen", "rows/s\nmean", "busiest\nminute", "tiles a\nlookup", "decode\nus", "merge\nus"),
    )
    for one in costs:
        lookup = one.lookup
        figures = ("", "", "")
        if lookup is not None:
            figures = (f"{lookup.tiles.mean:,.0f}", f"{lookup.decode_us:,.0f}", f"{lookup.merge_us:,.0f}")
        table.add_row(
            one.name,
            _count(one.events),
            _rate(one.appended_per_second),
            _rate(one.appended_per_second_busiest),
            *figures,
        )
    console.print(table)


def _show_extrapolated(console: Console, costs: Sequence[StorageCost]) -> None:
    """What more entities take."""
    found = [(one.name, one.extrapolation) for one in costs if one.extrapolation is not None]
    if not found:
        return
    console.print()
    table = narrow_table(
        "extrapolated to more entities like these",
        texts=("name",),
        numbers=("entities", "they take", "rows/s\nmean", "busiest\nminute"),
    )
    for name, more in found:
        rates = _rate(more.appended_per_second), _rate(more.appended_per_second_busiest)
        table.add_row(name, _count(more.entities), _bytes(more.memory_bytes), *rates)
    console.print(table)


def _notes(costs: Sequence[StorageCost]) -> Iterator[str]:
    """What was sampled, what was extrapolated, and what comes on top."""
    for one in costs:
        if not one.entities:
            yield f"{one.name}: the history has no events of it."
            continue
        about = "about " if one.entities_estimated else ""
        if one.entities_sampled < one.entities:
            yield (
                f"{one.name}: {one.entities_sampled:,} of {about}{one.entities:,} entities were folded,"
                f" chosen by a hash of the key; the total is extrapolated, ± {one.memory_error:.0%}."
            )
        else:
            yield f"{one.name}: all {one.entities:,} entities were folded."
        if one.packed:
            yield (
                f"  {one.packed / one.entities_sampled:.0%} of them share keys with others, as in a store that has the"
                " number that is expected."
            )
        elif one.entity_bytes.mean <= SMALL_ENTITY_BYTES and one.entities >= SMALL_ENTITIES_MIN:
            yield "  They are small: expected_entities= of the view, and they share keys and take less."
        ids = f" {_bytes(one.event_id_bytes)} of it are event ids." if one.event_id_bytes else ""
        yield (
            f"  While the stream appends, an entity takes up to {one.streaming_bytes:,.0f} bytes more on average,"
            f" {_bytes(one.streaming_bytes * one.entities)} in all.{ids}"
        )


def _show_features(console: Console, cost: StorageCost) -> None:
    """What each feature adds; how many add nothing."""
    if not cost.features:
        return
    console.print()
    table = narrow_table("", texts=(f"{cost.name}: added by",), numbers=("bytes of\nan entity", "share"))
    whole = cost.entity_bytes.mean
    adding = [one for one in cost.features if abs(one.entity_bytes) >= SHOWN_BYTES_MIN]
    for one in adding:
        name = one.feature if len(cost.views) == 1 else f"{one.view}:{one.feature}"
        table.add_row(name, f"{one.entity_bytes:,.0f}", f"{one.entity_bytes / whole:.1%}")
    if adding:
        console.print(table)
    console.print(
        f"{cost.name}: {len(cost.features) - len(adding)} features add nothing, as others need the same. What several"
        f" share is in no figure. Measured on {min(ENTITIES_MAX, cost.entities_sampled):,} entities."
    )


def _spread(spread: Spread) -> tuple[str, str, str]:
    """Mean, median and 99th percentile."""
    return f"{spread.mean:,.0f}", f"{spread.median:,.0f}", f"{spread.p99:,.0f}"


def _count(count: int) -> str:
    """A number for people, in nine places."""
    return f"{count:,}" if count < 10_000_000 else f"{count / 1e6:,.1f} M"


def _rate(per_second: float) -> str:
    """Rows a second."""
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.3g}"


def _bytes(size_bytes: float) -> str:
    """A size for people."""
    unit, scale = next((unit, scale) for unit, scale in _UNITS if size_bytes >= scale or scale == 1)
    scaled = size_bytes / scale
    return f"{scaled:,.0f} {unit}" if scaled >= 100 or scale == 1 else f"{scaled:,.1f} {unit}"
