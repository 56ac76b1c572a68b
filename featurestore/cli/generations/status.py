"""`featurestore status`: what the online store holds of each view, how far it has read, and how fresh it is."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurestore.cli.narrow_table import narrow_table
from featurestore.cli.settings import format_option, load_settings, open_running_store, print_json, settings_options
from featurestore.core.windows.durations import readable_duration
from featurestore.errors import redacted
from featurestore.online.read.store_sizes import bytes_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from featurestore.online.read.store_sizes import MemoryOverview
    from featurestore.online.read.store_status import GenerationOverview, StoreOverview
    from featurestore.wire.counts.freshness import PromiseState

EXIT_BROKEN = 10
HASH_DIGITS_SHOWN = 8
UNKNOWN = "-"

_MS_PER_SECOND = 1_000


@click.command("status")
@settings_options
@click.option(
    "--log-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    envvar="FEATURESTORE_LOG_DIR",
    show_envvar=True,
    help="The embedded log that the stream reads; shows how far behind it is.",
)
@click.option("--memory/--no-memory", default=True, show_default=True, help="List keys and sample their sizes.")
@click.option(
    "--exit-code",
    is_flag=True,
    help=f"Exit with {EXIT_BROKEN} when a promise of freshness is broken, or nobody measures it.",
)
@format_option
@click.pass_context
def command(
    context: click.Context,
    repo: Path | None,
    registry: str | None,
    project: str | None,
    store_url: str | None,
    cluster: bool | None,
    log_dir: Path | None,
    memory: bool,
    exit_code: bool,
    output: str,
) -> None:
    """Show what the online store holds of each view, and how fresh it is. Starts nothing and changes nothing.

    The lag of a stream that reads Kafka is in its own metrics, and in the consumer group that it publishes to.
    """
    from featurestore.clock import SystemClock
    from featurestore.definitions.changes import compiled_or_empty
    from featurestore.definitions.compile.versions import stored_views
    from featurestore.definitions.governance.about import contacts_of
    from featurestore.definitions.registry import find_registry_bytes
    from featurestore.definitions.schemas.directory import log_ends
    from featurestore.online.read.store_status import look_over

    settings = load_settings(repo=repo, registry=registry, project=project, store_url=store_url, cluster=cluster)
    content = find_registry_bytes(settings.registry)
    registered = compiled_or_empty(content, settings.project)
    contacts = contacts_of(content, settings.project)
    store = open_running_store(settings)
    try:
        found = look_over(
            store,
            settings.project,
            SystemClock(),
            registered=stored_views(registered),
            pinned=registered.pinned,
            expectations=registered.expectations,
            usual_hours=registered.usual_hours,
            promises=registered.promises,
            ends=None if log_dir is None else log_ends(log_dir),
            measures_memory=memory,
        )
    finally:
        store.close()
    if output == "json":
        promises = [{**asdict(one), "budget_left": one.budget_left, "is_kept": one.is_kept} for one in found.promises]
        print_json({**asdict(found), "promises": promises, "store": redacted(store.url), "contacts": contacts})
    else:
        show(found, contacts)
    if exit_code and not all(one.is_kept for one in found.promises):
        context.exit(EXIT_BROKEN)


def show(found: StoreOverview, contacts: Mapping[str, str]) -> None:
    """Tables for people; `contacts` says of views whose they are."""
    from rich.console import Console

    console = Console()
    as_of = _moment_text(found.as_of_ms)
    lanes = "nothing written yet" if found.lane_count is None else f"{found.lane_count} lanes"
    console.print(f"project [bold]{found.project}[/] at {as_of}: {lanes}")
    if found.generations:
        _show_generations(console, found)
        _show_reading(console, found)
        _show_partitions(console, found)
    if found.promises:
        _show_promises(console, found.promises, found.as_of_ms)
    if found.contracts or found.usual_hours:
        _show_contracts(console, found)
    if found.server is not None and found.server.evicts:
        console.print(
            f"[bold red]the store evicts keys[/]: maxmemory-policy {found.server.policy}, "
            f"{found.server.evicted_keys:,} evicted; run CONFIG SET maxmemory-policy noeviction"
        )
    for view, memory in found.plain.items():
        console.print(f"plain view {view}: {_memory_text(memory)}")
    for pin in found.pins:
        where = f"answered by {pin.stored_as}@{pin.number}" if pin.number else "not ready yet"
        console.print(f"{pin.version} is pinned by {', '.join(pin.services)}: {where}", highlight=False)
    for view in found.unstreamed:
        console.print(f"registered, but not streamed yet: {view}")
    for view, contact in contacts.items():
        console.print(f"{view}: {contact}", highlight=False)


def _show_generations(console: Console, found: StoreOverview) -> None:
    """What each generation is and holds."""
    table = narrow_table("views", texts=("view", "state", "definition"), numbers=("entities", "bytes\neach", "memory"))
    for one in found.generations:
        memory, at_least = one.memory, "" if one.memory is None or one.memory.is_complete else "≥ "
        table.add_row(
            _name(one),
            one.state,
            _definition_text(one),
            UNKNOWN if memory is None else f"{at_least}{memory.entities:,}",
            UNKNOWN if memory is None else f"{memory.entity_bytes_mean:,}",
            UNKNOWN if memory is None else f"{at_least}{bytes_text(memory.bytes_total)}",
        )
    console.print(table)
    for one in found.generations:
        if one.views != (one.view,):
            console.print(f"{_name(one)} is a storage group of {len(one.views)} views: {', '.join(one.views)}")
        for damaged in one.damaged if one.state == "serving" else ():
            console.print(f"[bold red]{_name(one)} is damaged[/], and another generation fills in its place: {damaged}")
        if (text := _packs_text(one)) is not None:
            console.print(f"{_name(one)}: {text}")
    if not all(one.is_registered_definition for one in found.generations):
        console.print("* not the definition that is registered now")


def _show_reading(console: Console, found: StoreOverview) -> None:
    """How far each generation has come."""
    table = narrow_table("stream", texts=("view", "newest event"), numbers=("freshness", "lanes", "lag"))
    for one in found.generations:
        table.add_row(
            _name(one),
            _moment_text(one.watermark_ms) if one.watermark_ms else UNKNOWN,
            UNKNOWN if one.freshness_ms is None else readable_duration(one.freshness_ms),
            str(one.lanes),
            UNKNOWN if one.lag_records is None else f"{one.lag_records:,}",
        )
    console.print(table)


def _show_partitions(console: Console, found: StoreOverview) -> None:
    """The next offset of every generation in every partition."""
    for one in found.generations:
        table = narrow_table(
            f"checkpoints of {_name(one)}", texts=("partition",), numbers=("next offset", "end", "lag")
        )
        for each in one.partitions:
            table.add_row(
                f"{each.topic}/{each.partition}",
                f"{each.next_offset:,}",
                UNKNOWN if each.end_offset is None else f"{each.end_offset:,}",
                UNKNOWN if each.lag_records is None else f"{each.lag_records:,}",
            )
        if table.row_count:
            console.print(table)


def _show_promises(console: Console, promises: Sequence[PromiseState], now_ms: int) -> None:
    """What is promised of each view's freshness, and what is left of its error budget."""
    numbers = ("promised", "of", "events", "late", "late in\nan hour", "budget\nleft")
    table = narrow_table("freshness, 30 days", texts=("view",), numbers=numbers)
    for one in promises:
        table.add_row(
            one.view,
            readable_duration(one.freshness_ms),
            f"{one.target:.6g}",
            f"{one.events:,}",
            f"{one.late:,}",
            f"{one.late_1h:,}",
            UNKNOWN if not one.events else f"{one.budget_left:.0%}",
        )
    console.print(table)
    for one in promises:
        if one.budget_left < 0:
            console.print(f"[bold red]{one.view} breaks its promise[/]: {one.late_share:.2%} of the events are late")
        if one.is_silent:
            since = readable_duration(now_ms - one.reported_ms) if one.reported_ms else "ever"
            console.print(
                f"[bold red]nobody measures the freshness of {one.view}[/]: no stream has reported for {since}"
            )


def _show_contracts(console: Console, found: StoreOverview) -> None:
    """What is expected of the sources' records, and which views read what breaks it."""
    for hour in found.usual_hours:
        console.print(f"{hour.source}: {hour.text}", highlight=False)
    texts, numbers = ("expectation", "on fail"), ("records", "failed", "share", "may", "failed\nin a day")
    table = narrow_table("contracts, newest two hours of event time", texts=texts, numbers=numbers)
    for one in found.contracts:
        table.add_row(
            f"{one.source}: {one.name}",
            one.on_fail,
            f"{one.records:,}",
            f"{one.failed:,}",
            f"{one.share:.2%}",
            f"{one.at_most:.2%}",
            f"{one.failed_1d:,}",
        )
    if found.contracts:
        console.print(table)
    for hour in found.usual_hours:
        if hour.is_broken:
            console.print(f"[bold red]{hour.source} breaks its contract[/]: {hour.name}")
    for one in found.contracts:
        if one.is_broken:
            last = f"{one.last_topic}/{one.last_partition}/{one.last_offset}"
            console.print(f"[bold red]{one.source} breaks its contract[/]: {one.name}, newest at {last}")
    for each in found.generations:
        if each.broken and each.state == "serving":
            console.print(f"{_name(each)} reads what breaks its contract: {', '.join(each.broken)}", highlight=False)


def _name(one: GenerationOverview) -> str:
    """View and generation, such as card_activity@2."""
    return f"{one.view}@{one.number}"


def _definition_text(one: GenerationOverview) -> str:
    """The hash's first digits, and a mark when the registry has moved on."""
    return one.definition_hash[:HASH_DIGITS_SHOWN] + ("" if one.is_registered_definition else " *")


def _packs_text(one: GenerationOverview) -> str | None:
    """How full its packs are; None where it has none, or nobody has looked."""
    if not one.packs or one.memory is None:
        return None
    memory = one.memory
    packs = f"{memory.packs:,} of {one.packs:,} packs, which are {memory.pack_fill:.0%} full"
    return f"{memory.packed_entities:,} of {memory.entities:,} entities share keys, in {packs}"


def _memory_text(memory: MemoryOverview) -> str:
    at_least = "" if memory.is_complete else "at least "
    return f"{at_least}{memory.entities:,} entities, {at_least}{bytes_text(memory.bytes_total)}"


def _moment_text(moment_ms: int) -> str:
    return datetime.fromtimestamp(moment_ms / _MS_PER_SECOND, tz=UTC).isoformat(sep=" ", timespec="seconds")[:19]
