"""`featurestore drop`: list the retired generations of a view, and delete one, or all that are of no use, for good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurestore.cli.callers import begin_action, require_generations, token_option
from featurestore.cli.settings import (
    Settings,
    format_option,
    load_settings,
    open_running_store,
    print_json,
    settings_options,
)
from featurestore.errors import InvalidRequest

if TYPE_CHECKING:
    from featurestore.online.generation import Generation
    from featurestore.online.generation_catalog import GenerationCatalog


@click.command("drop")
@click.argument("view", required=False)
@click.option(
    "--generation", "number", type=click.IntRange(min=1), metavar="N", help="Delete this one. Default: list only."
)
@click.option(
    "--retired",
    is_flag=True,
    help="Delete all retired ones, of VIEW or of all views, but what a rollback returns to.",
)
@token_option
@settings_options
@format_option
def command(
    view: str | None,
    number: int | None,
    retired: bool,
    output: str,
    repo: Path | None,
    registry: str | None,
    project: str | None,
    store_url: str | None,
    cluster: bool | None,
) -> None:
    """List the retired generations of VIEW; with --generation or --retired, delete keys for good, without asking.

    VIEW is a stream feature view or a storage group.

    Retired ones expire by themselves one retention after their last write, those of lifetime features never. A dropped
    one cannot be rolled back to. Only retired generations can be dropped: nothing reads or writes them.
    """
    from featurestore.online.generation import GenerationState
    from featurestore.online.generation_catalog import GenerationCatalog

    if (view is None and not retired) or (retired and number is not None):
        raise click.UsageError("Give VIEW, with --generation N or without; or --retired, for VIEW or for every view.")
    settings = load_settings(repo=repo, registry=registry, project=project, store_url=store_url, cluster=cluster)
    store = open_running_store(settings)
    try:
        catalog = GenerationCatalog(store, settings.project)
        stored = catalog.all()
        for name in sorted(stored) if view is None else [view]:
            require_generations(settings, name, stored)
        if retired:
            known = stored if view is None else {view: _generations(stored, view)}
            action = begin_action(settings, "retired generations" if view is None else f'feature view "{view}"')
            action.add(dropped=_drop_retired(catalog, known, output))
            return
        assert view is not None, "it was asked for"
        generations = _generations(stored, view)
        gone = [one for one in generations if one.state is GenerationState.RETIRED]
        if number is None:
            _list(view, generations, gone, output)
            return
        wanted = next((one for one in generations if one.number == number), None)
        if wanted is None or wanted not in gone:
            pins = _pins_of(settings, wanted)
            raise InvalidRequest(_why_not(view, number, wanted), detail=pins, hint=_remedy(view, gone))
        action = begin_action(settings, f'feature view "{view}"', generation=number)
        keys = catalog.drop(wanted)
        action.add(keys=keys)
        if output == "json":
            print_json({"view": view, "dropped": number, "keys": keys})
        else:
            click.echo(f"{view}@{number} is dropped: {keys:,} keys")
    finally:
        store.close()


def _drop_retired(
    catalog: GenerationCatalog, known: Mapping[str, Sequence[Generation]], output: str
) -> list[dict[str, object]]:
    """Delete what has retired and nothing returns to; answers with what that was."""
    dropped = list[dict[str, object]]()
    for view, generations in sorted(known.items()):
        kept = {one.replaces for one in generations if one.state == "serving"}
        for one in generations:
            if one.state == "retired" and one.number not in kept:
                dropped.append({"view": view, "dropped": one.number, "keys": catalog.drop(one)})
                if output != "json":
                    click.echo(f"{view}@{one.number} is dropped: {dropped[-1]['keys']:,} keys")
    if output == "json":
        print_json(dropped)
    elif not dropped:
        click.echo("nothing has retired but what a rollback returns to")
    return dropped


def _generations(known: dict[str, tuple[Generation, ...]], view: str) -> tuple[Generation, ...]:
    """A view's generations.

    Raises:
        InvalidRequest: the store has none.
    """
    from featurestore.definitions.problems import suggest

    if view not in known:
        raise InvalidRequest(
            f'the online store holds no stream feature view or storage group "{view}"', hint=suggest(view, known)
        )
    return known[view]


def _list(view: str, known: Sequence[Generation], retired: Sequence[Generation], output: str) -> None:
    """What can be dropped, and what a drop takes away."""
    before = next((one.replaces for one in known if one.state == "serving"), None)
    if output == "json":
        rows = [
            {"generation": one.number, "expires": one.view.retention_ms is not None, "rollback": one.number == before}
            for one in retired
        ]
        print_json({"view": view, "retired": rows})
        return
    if not retired:
        click.echo(f"{view} has no retired generation")
    for one in retired:
        lives = "until it is dropped" if one.view.retention_ms is None else "until its keys expire"
        rollback = ", `featurestore rollback` returns to it" if one.number == before else ""
        click.echo(f"{view}@{one.number}  retired, kept {lives}{rollback}")


def _pins_of(settings: Settings, generation: Generation | None) -> str:
    """Which feature services pin what a generation serves; "" for none."""
    from featurestore.definitions.changes import registered_or_empty
    from featurestore.online.serving_view import definition_of, views_of

    held = {each.definition for each in views_of(generation)} if generation and generation.state == "serving" else set()
    pinned = registered_or_empty(settings.registry, settings.project).pinned
    return "; ".join(
        f"{one.view.name} is pinned by {', '.join(one.services)}" for one in pinned if definition_of(one.view) in held
    )


def _why_not(view: str, number: int, found: Generation | None) -> str:
    """The fact behind a refusal."""
    name = f'generation {number} of feature view "{view}"'
    return f"{name} is {found.state.replace('_', ' ')}, not retired" if found else f"there is no {name}"


def _remedy(view: str, retired: Sequence[Generation]) -> str:
    """What can be dropped instead."""
    numbers = " or ".join(str(one.number) for one in retired)
    return f"give --generation {numbers}" if numbers else f"nothing of {view} can be dropped; see `featurestore status`"
