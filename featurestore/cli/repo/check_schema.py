"""`featurestore check-schema`: what a schema would break."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurestore.cli.repo.planning import registries, schema_registry_options
from featurestore.cli.settings import format_option, load_settings, print_json, repo_option

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from featurestore.core.spec import SourceSpec
    from featurestore.definitions.schemas.breaks import Break
    from featurestore.definitions.schemas.subjects import Registries, SubjectSchema

EXIT_BREAKS = 1
"""Something would break."""


@click.command("check-schema")
@repo_option
@click.option("--subject", required=True, help="Subject of the registry, such as TOPIC-value.")
@click.option(
    "--file",
    "path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The schema to check, .avsc, .proto or .json; default: the subject's newest one in the registry.",
)
@schema_registry_options
@format_option
def command(
    repo: Path | None, subject: str, path: Path | None, options: tuple[str, ...], config_file: str | None, output: str
) -> int:
    """Tell what a schema would break of the repo's views, by column, view and feature; for a producer's pipeline.

    Exit code 1: something would break. A column that the schema has no field for would be null; where it is a key, the
    event's time or its id, or where the type does not fit, every record would be a dead letter. A unit that is not what
    the source declares, or else what the version before has, breaks what is computed of it. What a .proto file imports
    is taken from the directory that it is in.
    """
    from featurestore.definitions.compile.versions import stored_views
    from featurestore.definitions.registry import find_registry_bytes
    from featurestore.definitions.repo import load_repo
    from featurestore.definitions.schemas.breaks import find_breaks
    from featurestore.definitions.schemas.checks import sources_with_schemas
    from featurestore.definitions.schemas.subjects import subjects_of
    from featurestore.errors import InvalidRequest

    settings = load_settings(repo=repo)
    loaded = load_repo(settings.require_repo(), settings.project)
    views = stored_views(loaded.compile(find_registry_bytes(settings.registry, with_all_versions=True)).spec)
    known = [(source, one, of) for source, of in sources_with_schemas(views) for one in subjects_of(source)]
    read = [each for each in known if each[1].name == subject]
    if not read:
        names = ", ".join(sorted({one.name for _, one, _ in known})) or "none"
        raise InvalidRequest(f'no view reads a topic of subject "{subject}"', hint=f"subjects are: {names}")
    breaks: list[Break] = []
    for source, one, of_source in read:
        schema, before = _schemas(
            source, subject, path, lambda: registries("check-schema", "\n".join(options), config_file or "")
        )
        breaks += find_breaks(source, of_source, one, schema, before)
    _show(subject, breaks, output)
    return EXIT_BREAKS if breaks else 0


def _schemas(
    source: SourceSpec, subject: str, path: Path | None, ask: Callable[[], Registries]
) -> tuple[SubjectSchema, SubjectSchema | None]:
    """The schema to check, of a file or the registry's newest; and the one before it, where there is one."""
    from featurestore.definitions.schemas.subjects import SubjectSchema
    from featurestore.errors import FeatureStoreError, InvalidRequest

    if path is None:
        asked = ask()
        newest = asked.newest(source, subject)
        if newest is None:
            raise InvalidRequest(f'schema registry {source.schema_registry} has no subject "{subject}"')
        return newest, asked.before(source, subject, newest.version)
    imports = {one.name: one.read_text(encoding="utf-8") for one in path.parent.glob("*.proto") if one != path}
    given = SubjectSchema(path.read_text(encoding="utf-8"), imports if source.format == "protobuf" else {})
    try:
        return given, ask().newest(source, subject)
    except FeatureStoreError as error:
        click.echo(f"note: units are not compared with those of the newest schema: {error.message}", err=True)
        return given, None


def _show(subject: str, breaks: Sequence[Break], output: str) -> None:
    if output == "json":
        found = [
            {
                "source": one.source,
                "column": one.column,
                "reason": one.reason,
                "loses_records": one.consequence.loses_records,
                "consequence": str(one.consequence),
                "remedy": one.remedy,
                "features": {view: list(names) for view, names in one.features.items()},
            }
            for one in breaks
        ]
        print_json({"subject": subject, "breaks": found})
        return
    if not breaks:
        click.echo(f"{subject}: nothing breaks")
    for one in breaks:
        click.echo(f"{subject}: {one.column}: {one.reason}; {one.consequence}")
        for view, names in one.features.items():
            click.echo(f"  {view}: {', '.join(names)}")
