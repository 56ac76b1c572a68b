"""`featurestore doctor`: what is wrong, and what grows without bound, each with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurestore.cli.settings import format_option, load_settings, open_running_store, print_json, settings_options
from featurestore.online.read.store_sizes import bytes_text

if TYPE_CHECKING:
    from featurestore.core.spec import RepoSpec
    from featurestore.offline.event_log.reader import EventLog
    from featurestore.online.read.store_status import GenerationOverview, StoreOverview
    from featurestore.online.store import OnlineStore

EXIT_FINDINGS = 10
"""With --exit-code: something is wrong."""

MEMORY_SHARE_MAX = 0.8
"""A store that is fuller than this share of its limit will be full."""

SMALL_FILE_BYTES = 16 << 20
SMALL_FILES_MAX = 50
"""So many small files of an event log slow its readers down."""


PACKS_FULL = 0.9
"""Packs as full as this let entities leave with nearly every fold."""

PACKS_MIN, PACK_ENTITIES_MIN = 1_000, 4
"""Fewer entities a pack save nothing; that of fewer packs is no matter."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to know.

    Attributes:
        is_wrong: it must be mended; otherwise it grows, and somebody should decide about it.
        what: the thing.
        fact: what is the matter.
        remedy: what to do.
        contact: whose view it is, and whom to reach; "" where nobody says.
    """

    is_wrong: bool
    what: str
    fact: str
    remedy: str
    contact: str = ""


@click.command("doctor")
@settings_options
@click.option("--event-log", metavar="URI", help="Also look at the event logs in this directory.")
@click.option(
    "--dead-letter-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Also look at the dead letters in this directory.",
)
@click.option(
    "--feature-log",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Also look at the feature log in this directory.",
)
@click.option("--exit-code", is_flag=True, help=f"Exit with {EXIT_FINDINGS} when something is wrong.")
@format_option
def command(
    repo: Path | None,
    registry: str | None,
    project: str | None,
    store_url: str | None,
    cluster: bool | None,
    event_log: str | None,
    dead_letter_dir: Path | None,
    feature_log: Path | None,
    exit_code: bool,
    output: str,
) -> int:
    """Look for what is wrong and for what grows without bound. Starts nothing and changes nothing.

    Of the store it lists keys and samples their sizes, as `status` does.
    """
    from featurestore.clock import SystemClock
    from featurestore.definitions.changes import compiled_or_empty
    from featurestore.definitions.compile.versions import stored_views
    from featurestore.definitions.governance.about import contacts_of
    from featurestore.definitions.registry import find_registry_bytes
    from featurestore.online.read.store_status import look_over

    settings = load_settings(repo=repo, registry=registry, project=project, store_url=store_url, cluster=cluster)
    content = find_registry_bytes(settings.registry)
    registered = compiled_or_empty(content, settings.project)
    contacts = contacts_of(content, settings.project)
    store = open_running_store(settings)
    try:
        seen = look_over(
            store,
            settings.project,
            SystemClock(),
            registered=stored_views(registered),
            pinned=registered.pinned,
            measures_memory=True,
        )
        erasures = list(of_erasures(event_log, registered, store))
    finally:
        store.close()
    findings = [*of_store(seen), *erasures, *of_event_logs(event_log), *of_files(dead_letter_dir, feature_log)]
    findings = [replace(one, contact=contacts.get(one.what.partition("@")[0], "")) for one in findings]
    findings.sort(key=lambda one: not one.is_wrong)
    if output == "json":
        print_json([asdict(one) for one in findings])
    else:
        _show(findings)
    return EXIT_FINDINGS if exit_code and any(one.is_wrong for one in findings) else 0


def of_store(seen: StoreOverview) -> Iterator[Finding]:
    """What the online store shows."""
    server = seen.server
    if server is not None and server.evicts:
        fact = f"it evicts keys: maxmemory-policy is {server.policy}, {server.evicted_keys:,} are gone"
        yield Finding(True, "online store", fact, "CONFIG SET maxmemory-policy noeviction")
    if server is not None and server.limit_bytes and server.used_bytes > MEMORY_SHARE_MAX * server.limit_bytes:
        fact = f"{bytes_text(server.used_bytes)} of {bytes_text(server.limit_bytes)} are used"
        yield Finding(True, "online store", fact, "give it more memory, or drop what is not needed")
    for pin in seen.pins:
        if not pin.number:
            fact = f"{', '.join(pin.services)} pins it, and nothing answers for it yet: its features are NOT_READY"
            yield Finding(True, pin.version, fact, f"wait for the stream, or `featurestore bootstrap {pin.version}`")
    for view in seen.unstreamed:
        yield Finding(True, view, "it is registered, and nothing streams it", "start `featurestore stream`")
    kept = {(one.view, one.replaces) for one in seen.generations if one.state == "serving"}
    for one in seen.generations:
        yield from _of_generation(one, is_rolled_back_to=(one.view, one.number) in kept)


def _of_generation(one: GenerationOverview, *, is_rolled_back_to: bool) -> Iterator[Finding]:
    """What one generation shows."""
    name = f"{one.view}@{one.number}"
    size = "" if one.memory is None else f", {bytes_text(one.memory.bytes_total)}"
    if one.state == "serving":
        for damaged in one.damaged:
            yield Finding(True, name, damaged, "wait for the generation that fills, or see what it waits for")
        if one.is_for_ever:
            entities = "" if one.memory is None else f"{one.memory.entities:,} entities{size}; "
            remedy = "give its features windows instead of lifetime, or plan for its growth"
            yield Finding(False, name, f"{entities}no entity of it is ever forgotten", remedy)
        yield from _of_packs(one, name)
    elif one.state == "rolled_back":
        remedy = f"`featurestore bootstrap {one.view} --anew`, or apply another definition"
        yield Finding(True, name, "it is not fed: rolled back, or its records are gone from the log", remedy)
    elif one.state == "retired":
        until = "is kept until it is dropped" if one.is_for_ever else "is kept until its keys expire"
        back = "; a rollback returns to it" if is_rolled_back_to else ""
        remedy = f"`featurestore drop {one.view} --generation {one.number}`"
        yield Finding(False, name, f"it has retired{size}, and {until}{back}", remedy)


def _of_packs(one: GenerationOverview, name: str) -> Iterator[Finding]:
    """Whether the number of expected entities is far from how many there are: memory or time is lost, and no value."""
    from featurestore.wire.store_layout import SMALL_ENTITIES_MIN, SMALL_ENTITY_BYTES

    memory = one.memory
    if memory is None or not memory.entities:
        return
    remedy = f"expected_entities={_rounded(memory.entities)}, and apply: another generation fills beside it"
    if not one.packs:
        if memory.entities >= SMALL_ENTITIES_MIN and memory.entity_bytes_mean <= SMALL_ENTITY_BYTES:
            fact = f"{memory.entities:,} entities of {memory.entity_bytes_mean:,} bytes have keys of their own"
            yield Finding(False, name, fact, f"let them share keys: {remedy}")
        return
    expects = f"{one.expected_entities:,} entities are expected" if one.expected_entities else "nobody expects as many"
    if memory.pack_fill >= PACKS_FULL:
        fact = f"its packs are full, and entities leave them: {expects}, and there are {memory.entities:,} or more"
        yield Finding(False, name, fact, remedy)
    elif memory.is_complete and memory.packs >= PACKS_MIN and memory.packed_entities < PACK_ENTITIES_MIN * memory.packs:
        fact = f"its packs are nearly empty: {expects}, and there are {memory.entities:,}"
        yield Finding(False, name, fact, f"if there will not be many more: {remedy}")


def _rounded(count: int) -> str:
    """Two digits of a number, upwards, as one writes it.

    >>> _rounded(406_343), _rounded(7)
    ('410_000', '7')
    """
    step = 10 ** max(0, len(str(count)) - 2)
    return f"{-(-count // step) * step:_}"


def of_erasures(root: str | None, repo: RepoSpec, store: OnlineStore) -> Iterator[Finding]:
    """Whether what was erased may have come back: what some place has on record, and another one lacks."""
    if root is None:
        return
    from featurestore.cli.generations.restoring import due

    for place, count in due(root, repo, store).items():
        fact = f"{count:,} erasures that are on record elsewhere are unknown to it: it was lost, or is a copy of before"
        yield Finding(True, place, fact, "`featurestore erase --restore`, before anybody reads what was erased")


def of_event_logs(root: str | None) -> Iterator[Finding]:
    """What the event logs of a directory show."""
    if root is None:
        return
    from featurestore.cli.processes.event_log import log_sources
    from featurestore.offline.event_log.address import below
    from featurestore.offline.event_log.reader import EventLog

    for name in log_sources(root):
        yield from _of_event_log(name, EventLog(below(root, name)))


def _of_event_log(name: str, log: EventLog) -> Iterator[Finding]:
    """What one event log shows."""
    small = [one for one in log.files if one.size_bytes < SMALL_FILE_BYTES]
    if len(small) > SMALL_FILES_MAX:
        fact = f"{len(small):,} of its {len(log.files):,} files are small"
        yield Finding(False, f"event log {name}", fact, "let `featurestore event-log run` merge them, or run `compact`")
    if log.kept_from is None and log.files:
        size = bytes_text(sum(one.size_bytes for one in log.files))
        remedy = "`featurestore event-log retain --days N`, if that is too much"
        yield Finding(False, f"event log {name}", f"it keeps every event, {size} by now", remedy)


def of_files(dead_letter_dir: Path | None, feature_log: Path | None) -> Iterator[Finding]:
    """What directories of dead letters and of answers show."""
    for what, directory, remedy in (
        ("dead letters", dead_letter_dir, "see why they could not be used, and delete what is settled"),
        ("feature log", feature_log, "delete the dates that no parity check needs any more"),
    ):
        found = [] if directory is None else [path.stat().st_size for path in directory.rglob("*") if path.is_file()]
        if found:
            fact = f"{len(found):,} files, {bytes_text(sum(found))}: nothing deletes them"
            yield Finding(False, f"{what} in {directory}", fact, remedy)


def _show(findings: list[Finding]) -> None:
    """Lines for people."""
    from rich.console import Console

    console = Console(highlight=False)
    for one in findings:
        mark = "[bold red]wrong[/]" if one.is_wrong else "[yellow]grows[/]"
        console.print(f"{mark}  [bold]{one.what}[/]: {one.fact}", soft_wrap=False)
        console.print(f"       {one.remedy}", style="dim")
        if one.contact:
            console.print(f"       {one.contact}", style="dim")
    if not findings:
        console.print("nothing is wrong, and nothing grows without bound")
