"""`featurestore dead-letters list | show | count | replay`: records that could not be used, and giving them again."""

from __future__ import annotations

import importlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from featurestore.cli.callers import begin_action, require_permission, token_option
from featurestore.cli.extras import require_packages
from featurestore.cli.narrow_table import narrow_table
from featurestore.cli.settings import format_option, load_settings, print_json, registry_options, time_ms
from featurestore.core.spec.access import READ_OFFLINE, WRITE_ONLINE, AccessSpec
from featurestore.errors import InvalidRequest

COMMAND = "dead-letters"
DESK = "dataflows.dead_letters.desk"
"""As a text: the stream is a program of its own, and Kafka's packages are its."""

UNKNOWN = "-"

Decorated = TypeVar("Decorated", bound=Callable[..., object])

PLACES = (
    click.option(
        "--log-dir",
        type=click.Path(path_type=Path),
        help="The embedded log, instead of Kafka. Default: $FEATURESTORE_LOG_DIR.",
    ),
    click.option(
        "--dead-letter-dir",
        type=click.Path(path_type=Path),
        help="Where the letters' files are. Default: $FEATURESTORE_DEAD_LETTER_DIR.",
    ),
    click.option(
        "--bootstrap-servers",
        help="Kafka addresses; default: those of the definitions. Default: $FEATURESTORE_BOOTSTRAP_SERVERS.",
    ),
    click.option(
        "--kafka-option",
        multiple=True,
        metavar="KEY=VALUE",
        help="librdkafka setting; may be repeated. Default: $FEATURESTORE_KAFKA_OPTION.",
    ),
    click.option(
        "--kafka-config",
        type=click.Path(path_type=Path),
        help="File of librdkafka settings. Default: $FEATURESTORE_KAFKA_CONFIG.",
    ),
    click.option(
        "--schema-registry-option",
        multiple=True,
        metavar="KEY=VALUE",
        help="Setting of the registry's client. Default: $FEATURESTORE_SCHEMA_REGISTRY_OPTION.",
    ),
    click.option(
        "--schema-registry-config",
        type=click.Path(path_type=Path),
        help="File of settings of that client. Default: $FEATURESTORE_SCHEMA_REGISTRY_CONFIG.",
    ),
    click.option(
        "--dead-letter-key-file",
        type=click.Path(path_type=Path),
        help="Keys that open encrypted payloads. Default: $FEATURESTORE_DEAD_LETTER_KEY_FILE.",
    ),
)
"""Where letters are; each has the environment variable of the stream's option."""

_TEXTS = (
    "log_dir",
    "dead_letter_dir",
    "bootstrap_servers",
    "kafka_option",
    "kafka_config",
    "schema_registry_option",
    "schema_registry_config",
    "dead_letter_key_file",
)
"""Their names, as the stream has them."""

FILTERS = (
    click.option("--reason", "reasons", multiple=True, help="Only letters of this reason; may be repeated."),
    click.option("--source", "sources", multiple=True, metavar="NAME", help="Only of this source; may be repeated."),
    click.option("--view", "views", multiple=True, metavar="NAME", help="Only those that this view refused."),
    click.option("--since", metavar="TIME", help="Written since then: 2h ago, or 2026-11-30T12:00:00Z."),
    click.option("--before", metavar="TIME", help="Written before then."),
)
"""Which letters are meant."""


def place_options(*options: Callable[[Decorated], Decorated]) -> Callable[[Decorated], Decorated]:
    """Several options as one decorator."""

    def decorate(function: Decorated) -> Decorated:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


@click.group(COMMAND)
def command() -> None:
    """Look at the records that could not be used, and give them to the stream again once that is mended."""


@command.command("list")
@token_option
@registry_options
@place_options(*PLACES, *FILTERS)
@click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many, newest last."
)
@format_option
def list_command(*, limit: int, output: str, **given: Any) -> None:
    """One line for each letter: where its record is, when it was written, why."""
    found = _found(open_desk(given), given, READ_OFFLINE)
    shown = found[-limit:]
    if output == "json":
        print_json([_fields(letter) for letter in shown])
        return
    for letter in shown:
        mark = " (replayed)" if letter.is_replayed else ""
        click.echo(f"{letter.name}  {_moment(letter.written_ms)}  {letter.reason}{mark}: {letter.detail}")
    if len(found) > len(shown):
        click.echo(f"and {len(found) - len(shown):,} before these")


@command.command("count")
@token_option
@registry_options
@place_options(*PLACES, *FILTERS)
@format_option
def count_command(*, output: str, **given: Any) -> None:
    """How many there are, by topic, view and reason."""
    from rich.console import Console

    found = _found(open_desk(given), given, READ_OFFLINE)
    counts = Counter((one.topic, one.view or "", one.reason) for one in found)
    replayed = Counter((one.topic, one.view or "", one.reason) for one in found if one.is_replayed)
    names = ("topic", "view", "reason")
    if output == "json":
        rows = [{**dict(zip(names, key, strict=True)), "letters": counts[key]} for key in sorted(counts)]
        print_json([{**row, "replayed": replayed[key]} for row, key in zip(rows, sorted(counts), strict=True)])
        return
    table = narrow_table("dead letters", texts=names, numbers=("letters", "replayed"))
    for key in sorted(counts):
        topic, view, reason = key
        table.add_row(topic, view or UNKNOWN, reason, f"{counts[key]:,}", f"{replayed[key]:,}")
    Console().print(table)


@command.command("show")
@token_option
@registry_options
@place_options(*PLACES)
@click.argument("place", metavar="TOPIC/PARTITION/OFFSET")
@format_option
def show_command(*, place: str, output: str, **given: Any) -> None:
    """Everything about the letters of one record, and its payload."""
    topic, partition, offset = _place(place)
    desk = open_desk(given)
    _require(desk, given, READ_OFFLINE, {topic})
    found = desk.find([topic], lambda one: (one.partition, one.offset) == (partition, offset))
    if not found:
        raise InvalidRequest(f"there is no dead letter of {place}", hint="`featurestore dead-letters list` shows all")
    judged = desk.judge(found)
    if output == "json":
        print_json([{**_fields(one.letter), "payload": _payload(one.letter), "why_not": one.why_not} for one in judged])
        return
    for one in judged:
        click.echo(f"{one.letter.name}  {_moment(one.letter.written_ms)}  {one.letter.reason}: {one.letter.detail}")
        click.echo(f"replay: {one.why_not or 'possible'}")
        click.echo(_payload(one.letter))


@command.command("replay")
@token_option
@registry_options
@place_options(*PLACES, *FILTERS)
@click.option("--dry-run", is_flag=True, help="Only say which letters would be replayed, and why others cannot be.")
@click.argument("places", nargs=-1, metavar="[TOPIC/PARTITION/OFFSET]...")
@format_option
def replay_command(*, places: tuple[str, ...], dry_run: bool, output: str, **given: Any) -> int:
    """Give the records of letters to their topic again; each counts once, however often this is done.

    Exit code 1: some of the letters cannot be replayed; each says why.
    """
    chosen = {_place(place) for place in places}
    desk = open_desk(given)
    found = [
        one
        for one in _found(desk, given, WRITE_ONLINE, {topic for topic, _, _ in chosen})
        if not one.is_replayed and (not chosen or (one.topic, one.partition, one.offset) in chosen)
    ]
    judged = desk.judge(found)
    fit = [one.letter for one in judged if not one.why_not]
    replayed = 0 if dry_run else _replay(desk, given, fit)
    unfit = [one for one in judged if one.why_not]
    if output == "json":
        refused = [{**_fields(one.letter), "why_not": one.why_not} for one in unfit]
        print_json({"fit": [_fields(letter) for letter in fit], "replayed": replayed, "unfit": refused})
        return 1 if unfit else 0
    for why_not, count in Counter(one.why_not for one in unfit).most_common():
        first = next(one.letter for one in unfit if one.why_not == why_not)
        click.echo(f"not replayed: {count:,}, the first {first.name}: {why_not}")
    click.echo(f"{len(fit):,} letters can be replayed" if dry_run else f"{replayed:,} letters replayed")
    return 1 if unfit else 0


def open_desk(given: Mapping[str, Any]) -> Any:
    """Whatever finds and replays letters."""
    require_packages(COMMAND)
    settings = load_settings(repo=given["repo"], registry=given["registry"], project=given["project"])
    texts = {"project": settings.project, "registry": settings.registry}
    for name in (
        "log_dir",
        "dead_letter_dir",
        "bootstrap_servers",
        "kafka_config",
        "schema_registry_config",
        "dead_letter_key_file",
    ):
        if given[name]:
            texts[name] = str(given[name])
    for name in ("kafka_option", "schema_registry_option"):
        if given[name]:
            texts[name] = "\n".join(given[name])
    return importlib.import_module(DESK).Desk(texts, os.environ)


def _require(desk: Any, given: Mapping[str, Any], action: str, topics: Collection[str]) -> None:
    """It takes the right to each view that reads the records: what is given again, all of them take."""
    settings = load_settings(repo=given["repo"], registry=given["registry"], project=given["project"])
    access: AccessSpec = desk.access
    views = {view for name in topics for view in desk.readers(name) or [name]}
    require_permission(settings, action, views=sorted(views), access=access)


def _replay(desk: Any, given: Mapping[str, Any], fit: Sequence[Any]) -> int:
    """Give letters again, which the audit log knows before."""
    settings = load_settings(repo=given["repo"], registry=given["registry"], project=given["project"])
    topics = Counter(letter.topic for letter in fit)
    action = begin_action(settings, ", ".join(f'topic "{topic}"' for topic in sorted(topics)), letters=topics)
    replayed: int = desk.replay(fit)
    action.add(replayed=replayed)
    return replayed


def _found(desk: Any, given: Mapping[str, Any], action: str, topics: Collection[str] = ()) -> list[Any]:
    """The letters that are meant, the oldest first; whoever asks must be allowed to, by topic, source or all."""
    _require(desk, given, action, topics or given["sources"] or desk.topics(()))
    since_ms, before_ms = (time_ms(given[name], desk.now_ms) for name in ("since", "before"))
    reasons, views = set(given["reasons"]), set(given["views"])

    def wanted(letter: Any) -> bool:
        """Whether it is one of them; what an older release wrote to a file has no time."""
        return (
            (not reasons or letter.reason in reasons)
            and (not views or letter.view in views)
            and (since_ms is None or (letter.written_ms is not None and letter.written_ms >= since_ms))
            and (before_ms is None or letter.written_ms is None or letter.written_ms < before_ms)
        )

    found: list[Any] = desk.find(desk.topics(given["sources"]), wanted)
    return sorted(found, key=lambda one: one.written_ms or 0)


def _place(text: str) -> tuple[str, int, int]:
    """Topic, partition and offset."""
    topic, _, rest = text.partition("/")
    partition, _, offset = rest.partition("/")
    if not (topic and partition.isdecimal() and offset.isdecimal()):
        raise InvalidRequest(f'"{text}" is no place of a record', hint="write TOPIC/PARTITION/OFFSET")
    return topic, int(partition), int(offset)


def _fields(letter: Any) -> dict[str, object]:
    """A letter without its payload."""
    return {
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "view": letter.view,
        "written_ms": letter.written_ms,
        "reason": letter.reason,
        "detail": letter.detail,
        "payload_bytes": letter.payload_bytes,
        "is_replayed": letter.is_replayed,
    }


def _payload(letter: Any) -> str:
    """A payload for people, whatever its bytes."""
    if letter.payload is None:
        return f"({letter.payload_bytes:,} bytes that were dropped, or that no key here opens)"
    text: str = letter.payload.decode(errors="backslashreplace")
    return text if letter.is_whole else f"{text} ... of {letter.payload_bytes:,} bytes"


def _moment(written_ms: int | None) -> str:
    """A moment for people."""
    if written_ms is None:
        return UNKNOWN
    return datetime.fromtimestamp(written_ms / 1_000, tz=UTC).isoformat(sep=" ", timespec="seconds")[:19]
