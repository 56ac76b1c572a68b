"""`featurestore check-schema`: what a schema would break; and the same question, asked by every plan and apply."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurestore.cli.extras import missing_package
from featurestore.cli.settings import format_option, load_settings, print_json, repo_option

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from featurestore.core.spec import SourceSpec, ViewSpec
    from featurestore.definitions.schemas.breaks import Break

EXIT_BREAKS = 1
"""Something would break."""

REGISTRIES = "dataflows.logs.schemas"
"""As a text: the stream is a program of its own, and Kafka's packages are its."""

OPTIONS_VARIABLE = "FEATURESTORE_SCHEMA_REGISTRY_OPTION"
"""Environment variable of the stream's option: settings of the registry's client, one a line."""


@click.command("check-schema")
@repo_option
@click.option("--subject", required=True, help="Subject of the registry: the topic and -value.")
@click.option(
    "--file",
    "path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The schema to check, .avsc or .proto; default: the subject's newest one in the registry.",
)
@click.option(
    "--schema-registry-option",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help=f"Setting of the registry's client; may be repeated. Default: ${OPTIONS_VARIABLE}.",
)
@format_option
def command(repo: Path | None, subject: str, path: Path | None, options: tuple[str, ...], output: str) -> int:
    """Tell what a schema would break of the repo's views, by column, view and feature; for a producer's pipeline.

    Exit code 1: something would break. A column that the schema has no field for would be null; where it is a key, the
    event's time or its id, or where the type does not fit, every record would be a dead letter. What a .proto file
    imports is taken from the directory that it is in.
    """
    from featurestore.definitions.compile.versions import stored_views
    from featurestore.definitions.registry import find_registry_bytes
    from featurestore.definitions.repo import load_repo
    from featurestore.definitions.schemas.breaks import find_breaks
    from featurestore.errors import InvalidRequest

    settings = load_settings(repo=repo)
    loaded = load_repo(settings.require_repo(), settings.project)
    views = stored_views(loaded.compile(find_registry_bytes(settings.registry, with_all_versions=True)).spec)
    sources = [(source, of_source) for source, of_source in _checked(views) if subject_of(source) == subject]
    if not sources:
        known = ", ".join(sorted({subject_of(source) for source, _ in _checked(views)})) or "none"
        raise InvalidRequest(f'no view reads a topic of subject "{subject}"', hint=f"subjects are: {known}")
    breaks: list[Break] = []
    for source, of_source in sources:
        text, references = _schema(source, subject, path, "\n".join(options))
        breaks += find_breaks(source, of_source, text, references)
    _show(subject, breaks, output)
    return EXIT_BREAKS if breaks else 0


def notes_of_registries(views: Sequence[ViewSpec]) -> Iterator[str]:
    """What the newest schemas of the views' registries would break, or that one does not answer: for a plan to tell."""
    from featurestore.definitions.schemas.breaks import find_breaks
    from featurestore.errors import FeatureStoreError

    for source, of_source in _checked(views):
        subject = subject_of(source)
        try:
            text, references = _schema(source, subject, None, "")
            breaks = find_breaks(source, of_source, text, references)
        except FeatureStoreError as error:
            yield f'source "{source.name}" is not checked against its schema: {error.message}'
            continue
        for one in breaks:
            features = ", ".join(f"{view} ({len(names)} features)" for view, names in one.features.items())
            yield f'subject "{subject}", column "{one.column}": {one.reason}; {one.what_follows}, read by {features}'


def subject_of(source: SourceSpec) -> str:
    """The subject of a topic's values, as Confluent's serializers name it unless they are told otherwise."""
    return f"{source.topic}-value"


def _checked(views: Sequence[ViewSpec]) -> list[tuple[SourceSpec, list[ViewSpec]]]:
    """The sources of one topic each that have schemas, and the views that read them."""
    from featurestore.definitions.schemas.breaks import CHECKED_FORMATS

    found: dict[SourceSpec, list[ViewSpec]] = {}
    for view in views:
        for source in view.source.per_topic if view.source.format in CHECKED_FORMATS else ():
            found.setdefault(source, []).append(view)
    return list(found.items())


def _schema(source: SourceSpec, subject: str, path: Path | None, options: str) -> tuple[str, Mapping[str, str]]:
    """A schema's text and what it imports: of a file, or the registry's newest."""
    from featurestore.errors import InvalidRequest

    if path is not None:
        imports = {one.name: one.read_text(encoding="utf-8") for one in path.parent.glob("*.proto") if one != path}
        return path.read_text(encoding="utf-8"), imports if source.format == "protobuf" else {}
    given = options or os.environ.get(OPTIONS_VARIABLE, "")
    newest: tuple[str, Mapping[str, str]] | None
    try:
        newest = importlib.import_module(REGISTRIES).registries_of(given).newest(source, subject)
    except ModuleNotFoundError as error:
        raise missing_package("check-schema", error, extra="stream") from error
    if newest is None:
        raise InvalidRequest(f'schema registry {source.schema_registry} has no subject "{subject}"')
    return newest


def _show(subject: str, breaks: Sequence[Break], output: str) -> None:
    if output == "json":
        found = [
            {
                "source": one.source,
                "column": one.column,
                "reason": one.reason,
                "loses_records": one.loses_records,
                "features": {view: list(names) for view, names in one.features.items()},
            }
            for one in breaks
        ]
        print_json({"subject": subject, "breaks": found})
        return
    if not breaks:
        click.echo(f"{subject}: nothing breaks")
    for one in breaks:
        click.echo(f"{subject}: {one.column}: {one.reason}; {one.what_follows}")
        for view, names in one.features.items():
            click.echo(f"  {view}: {', '.join(names)}")
