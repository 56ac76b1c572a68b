"""`featurestore fingerprint KEY=VALUE`: what logs and errors call an entity, as they never have its key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from featurestore.cli.lookup.given import texts_of
from featurestore.cli.settings import format_option, load_settings, print_json, registry_options
from featurestore.errors import InvalidRequest, UnknownJoinKey

if TYPE_CHECKING:
    from pathlib import Path

    from featurestore.core.spec import Column, PlainViewSpec, ViewSpec
    from featurestore.wire.entity_key import EntityValue


@click.command("fingerprint")
@click.argument("entity", nargs=-1, required=True, metavar="KEY=VALUE...")
@format_option
@registry_options
def command(entity: tuple[str, ...], output: str, repo: Path | None, project: str | None, registry: str | None) -> None:
    """What do logs and errors call the entity KEY=VALUE, in each view that has these join keys?

    Search the logs for it. It is short, so that who reads a log finds nobody by trying; so another entity may have it
    too.

    Example: featurestore fingerprint card_id=c-17
    """
    from featurestore.definitions.problems import suggest
    from featurestore.definitions.registry import read_registry
    from featurestore.wire.entity_key import encode_key, fingerprint

    settings = load_settings(repo=repo, project=project, registry=registry)
    registered = read_registry(settings.registry, project=settings.project)
    texts = {name: values[-1] for name, values in texts_of(entity).items()}
    views: list[ViewSpec | PlainViewSpec] = [*registered.views, *registered.plain_views]
    known = {key.name for view in views for key in view.join_keys}
    for name in texts:
        if name not in known:
            raise UnknownJoinKey(f'no view has a join key "{name}"', hint=suggest(name, sorted(known)))
    found = {
        view.name: fingerprint(encode_key([_value(key, texts) for key in view.join_keys]))
        for view in views
        if all(key.name in texts for key in view.join_keys)
    }
    if not found:
        raise InvalidRequest(f"no view has only the join keys {', '.join(texts)}", hint="give all join keys of a view")
    if output == "json":
        print_json(found)
        return
    width = max(map(len, found))
    for name, of_entity in found.items():
        click.echo(f"{name:<{width}}  {of_entity}")


def _value(key: Column, texts: Mapping[str, str]) -> EntityValue:
    """A value as the join key's type."""
    from featurestore.core.spec import ValueType

    if key.type is not ValueType.INT64:
        return texts[key.name]
    try:
        return int(texts[key.name])
    except ValueError:
        raise InvalidRequest(f'join key "{key.name}" is a whole number, and the value is none') from None
