"""`featurestore erase KEY=VALUE`: remove a person's data, with a receipt; `--verify` looks whether anything is left.

    record, so that stream and bootstrap leave it out ─ online store ─ event logs ─ ... ─ receipt

It may be killed at any time and run again: what is gone is gone, and the record comes first.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featurestore.cli.callers import begin_action, require_permission, token_option
from featurestore.cli.lookup.given import MomentType
from featurestore.cli.processes.dead_letters import PLACES, open_desk, place_options
from featurestore.cli.processes.event_log import log_root
from featurestore.cli.settings import (
    event_log_option,
    format_option,
    load_settings,
    open_running_store,
    print_json,
    settings_options,
)
from featurestore.core.spec.access import WRITE_OFFLINE, WRITE_ONLINE
from featurestore.errors import InvalidRequest

if TYPE_CHECKING:
    from featurestore.cli.generations.erasing import PlaceReport, Remains, Subject
    from featurestore.cli.settings import Settings
    from featurestore.core.spec import RepoSpec
    from featurestore.wire.erasures import Erasure

EXIT_FOUND = 1
"""Something was found that is erased."""

TOMBSTONES = "dataflows.log_to_features.tombstones"
"""As a text: Kafka's packages are the stream's."""


@click.command("erase")
@click.argument("subject", metavar="KEY=VALUE", required=False)
@click.option(
    "--before",
    "before_ms",
    type=MomentType(),
    help="Only what is older than this moment, ISO 8601 or milliseconds since 1970. Default: all until now.",
)
@click.option(
    "--restore",
    is_flag=True,
    help="Instead of KEY=VALUE: apply all erasures on record again, after a store or a log came back from a copy.",
)
@click.option(
    "--verify", is_flag=True, help="Remove nothing: look again, and end with exit code 1 if anything is found."
)
@click.option(
    "--receipt",
    "receipt_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the receipt to this file, as JSON; with --verify, the receipt that is held against what is there; with "
    "--restore, one whose erasure is applied too.",
)
@event_log_option("event_log", "URI", "Root of the event logs.")
@click.option(
    "--feature-log", "feature_logs", multiple=True, metavar="URI", help="A feature log to clean; may be repeated."
)
@click.option(
    "--published",
    multiple=True,
    metavar="SERVICE=TOPIC",
    help="A topic of `featurestore publish`, in which the entity's vectors are taken back; may be repeated.",
)
@click.option(
    "--work-dir",
    "work_dirs",
    multiple=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Kept work of training sets, which is deleted; may be repeated.",
)
@token_option
@settings_options
@place_options(*PLACES)
@format_option
def command(
    *,
    subject: str | None,
    before_ms: int | None,
    restore: bool,
    verify: bool,
    receipt_path: Path | None,
    event_log: str | None,
    output: str,
    **given: Any,
) -> int:
    """Remove what is known of the entity KEY=VALUE until now, for good and without asking; as of card_id=c-17.

    KEY is a join key. Entities of several join keys go if one of them is it. What happens from now on counts as of
    somebody new; what happened before does not come back, whoever sends or replays it. Run it again, at any time.

    With --before only what is older goes, for good too; with --restore all that was erased goes once more.

    Exit code 1: a place could not be cleaned, or something was found.
    """
    from featurestore.cli.generations import erasing
    from featurestore.clock import SystemClock
    from featurestore.definitions.registry import read_registry

    say = partial(click.echo, err=True)
    settings = load_settings(**{name: given[name] for name in ("repo", "registry", "project", "store_url", "cluster")})
    registered = read_registry(settings.registry, project=settings.project)
    if subject is None or restore:
        if subject is not None or before_ms is not None or verify or not restore:
            raise click.UsageError("give KEY=VALUE, or --restore alone")
        _require(settings, registered, None)
        return _restored(settings, registered, log_root(given["repo"], event_log), receipt_path, output)
    _require(settings, registered, subject)
    root, clock = log_root(given["repo"], event_log), SystemClock()
    store = open_running_store(settings)
    try:
        whose = erasing.subject_of(subject, registered, store, settings.project)
        if verify:
            record = erasing.record_of(store, settings.project, whose)
            _require_same(receipt_path, record)
            found = [
                *erasing.remaining_in_store(store, registered, whose, record, clock, say),
                *erasing.remaining_in_event_logs(root, registered, whose, record),
            ]
            found += _others(given, registered, whose, record, is_trial=True)
            return _verified(record, [one for one in found if one.count or one.is_failure], output)
        # Never the value: whoever reads the log must not learn whom it was about.
        action = begin_action(settings, f'join key "{subject.partition("=")[0]}"')
        record, reports = erasing.erase_from_store(store, registered, whose, clock, say, before_ms)
        erase_rows = partial(erasing.erase_from_event_logs, root, registered, whose, record, clock, say)
        reports += erasing.attempt("event log", root, erase_rows)
        reports += _others(given, registered, whose, record)
    finally:
        store.close()
    remains = erasing.unreached(registered, whose, reports, root)
    places = [{"place": one.place, "name": one.name, "count": one.count} for one in reports]
    action.add(digest=record.digest, before_ms=record.before_ms, places=places)
    written = erasing.receipt(record, settings.project, reports, remains)
    if receipt_path is not None:
        receipt_path.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    if output == "json":
        print_json(written)
    else:
        _show(record, reports, remains)
    return 1 if any(one.is_failure for one in reports) else 0


def _restored(settings: Settings, registered: RepoSpec, root: str, receipt_path: Path | None, output: str) -> int:
    """Apply what is on record; the exit code."""
    from featurestore.cli.generations import restoring
    from featurestore.clock import SystemClock

    say, receipts = partial(click.echo, err=True), restoring.of_receipts([receipt_path] if receipt_path else [])
    store = open_running_store(settings)
    try:
        logs = restoring.of_event_logs(root, registered)
        count, reports = restoring.restore(store, registered, logs, receipts, SystemClock(), say)
    finally:
        store.close()
    if output == "json":
        print_json({"erasures": count, "places": [asdict(one) for one in reports]})
    else:
        click.echo(f"{count:,} erasures are on record, and applied everywhere")
        _show_places(reports)
    return 1 if any(one.is_failure for one in reports) else 0


def _require(settings: Settings, registered: RepoSpec, subject: str | None) -> None:
    """It takes the right to write, online and offline, to each view of the join key; or to all."""
    key = None if subject is None else subject.partition("=")[0]
    views = [view.name for view in registered.views if key is None or any(one.name == key for one in view.join_keys)]
    for action in (WRITE_ONLINE, WRITE_OFFLINE):
        # Of a key that there is not, nothing is told either.
        require_permission(settings, action, views=views or [key or "*"], access=registered.access)


def _others(
    given: Mapping[str, Any], registered: RepoSpec, whose: Subject, record: Erasure, *, is_trial: bool = False
) -> list[PlaceReport]:
    """Everything beside store and event logs; what cannot be done of it is a report too."""
    from featurestore.cli.generations import erasing

    desk = open_desk(given)
    take_back = importlib.import_module(TOMBSTONES).take_back
    reports = erasing.attempt(
        "dead letters", "all", lambda: erasing.erase_letters(desk, whose, record, is_trial=is_trial)
    )
    reports += erasing.attempt(
        erasing.SOURCE_TOPIC, "all", lambda: erasing.erase_records(desk, whose, record, is_trial=is_trial)
    )
    for place in given["feature_logs"]:
        erase = partial(erasing.erase_from_feature_logs, [place], whose, record, is_trial=is_trial)
        reports += erasing.attempt("feature log", place, erase)
    for topic in given["published"]:
        erase = partial(
            erasing.take_back_published, take_back, desk, registered, [topic], whose, record, is_trial=is_trial
        )
        reports += erasing.attempt("published topic", topic, erase)
    for place in [] if is_trial else given["work_dirs"]:
        reports += erasing.attempt("kept work", str(place), partial(erasing.forget_work, [place]))
    return reports


def _show(record: Erasure, reports: Sequence[PlaceReport], remains: Sequence[Remains]) -> None:
    """The receipt for people."""
    click.echo(f"erased: what happened before {_moment(record.before_ms)}")
    _show_places(reports)
    click.echo("not reached:")
    for left in remains:
        click.echo(f"  {left.place}  {left.name}: {left.why}")


def _show_places(reports: Sequence[PlaceReport]) -> None:
    """What was removed, line by line."""
    for one in reports:
        until = f", until {_moment(one.until_ms)}" if one.until_ms is not None else ""
        click.echo(f"  {one.place}  {one.name}: {one.count:,} {one.unit}")
        if one.remains:
            click.echo(f"      remains: {one.remains}{until}")


def _verified(record: Erasure, found: Sequence[PlaceReport], output: str) -> int:
    """Say what was found; the exit code."""
    if output == "json":
        print_json({"before_ms": record.before_ms, "found": [{"name": one.name, "count": one.count} for one in found]})
    else:
        for one in found:
            click.echo(f"found: {one.place}  {one.name}: {one.count:,} {one.unit}")
        if not found:
            click.echo(f"nothing is left of what happened before {_moment(record.before_ms)}")
    return EXIT_FOUND if found else 0


def _require_same(path: Path | None, record: Erasure) -> None:
    """Refuse a receipt of somebody else.

    Raises:
        InvalidRequest: it is, or is no receipt.
    """
    if path is None:
        return
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        digest, before_ms = held["digest"], held["before_ms"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidRequest(f'"{path}" is no receipt of an erasure', detail=str(error)) from error
    if digest != record.digest or before_ms > record.before_ms:
        raise InvalidRequest(
            f'receipt "{path}" is of another erasure',
            detail="Its digest is another one, or the store's record does not reach as far.",
            hint="give the KEY=VALUE that it was written for; after a restore from a copy, erase again",
        )


def _moment(moment_ms: int) -> str:
    """UTC, to the millisecond."""
    return datetime.fromtimestamp(moment_ms / 1_000, tz=UTC).isoformat(timespec="milliseconds")
