"""`featurestore contract export | check`: a source's contract as an Open Data Contract Standard document."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurestore.cli.repo.planning import registries, schema_registry_options
from featurestore.cli.settings import format_option, load_settings, print_json, registry_options

if TYPE_CHECKING:
    from featurestore.core.spec import Expectation, SourceSpec, UsualHours, ViewSpec
    from featurestore.wire.feast.authors import Authored

EXIT_DIFFERS = 1
"""The contract is not kept, or says something else."""

SAMPLE_ROWS_DEFAULT = 100_000


@click.group("contract")
def command() -> None:
    """Write a source's contract as a document, or hold one against definitions, schemas and data."""


@command.command("export")
@registry_options
@click.argument("source", metavar="SOURCE")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write; default: print it.")
@click.option("--contract-version", default="1.0.0", show_default=True, help="Version of the contract.")
@click.option("--status", default="active", show_default=True, help="Status of the contract.")
def export_command(
    repo: Path | None,
    registry: str | None,
    project: str | None,
    source: str,
    out: Path | None,
    contract_version: str,
    status: str,
) -> None:
    """Write what is registered of a source as YAML of the Open Data Contract Standard, version 3.1."""
    from featurestore.core.windows.durations import parse_duration_ms
    from featurestore.definitions.compile.expectations import FRESHNESS_TAG
    from featurestore.definitions.governance.about import about_of, pii_columns_of
    from featurestore.definitions.schemas.data_contract import ContractTerms, contract_document, contract_text

    found = _source(repo, registry, project, source)
    freshness = found.author.tags.get(FRESHNESS_TAG)
    terms = ContractTerms(
        version=contract_version,
        status=status,
        owner=found.author.owner,
        description=found.author.description,
        freshness_ms=parse_duration_ms(freshness) if freshness else 0,
        on_call=about_of(found.author).on_call,
        pii=pii_columns_of(found.author.tags),
    )
    text = contract_text(contract_document(found.project, found.spec, found.expectations, terms, found.usual_hours))
    if out is None:
        click.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")
        click.echo(f"{source} in {out}")


@command.command("check")
@registry_options
@click.argument("path", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--source", required=True, metavar="NAME", help="The source that it is about.")
@click.option("--event-log", metavar="URI", help="Directory or URI of the event logs: hold the newest rows against it.")
@click.option(
    "--sample", type=click.IntRange(min=1), default=SAMPLE_ROWS_DEFAULT, show_default=True, help="At most so many rows."
)
@schema_registry_options
@format_option
def check_command(
    repo: Path | None,
    registry: str | None,
    project: str | None,
    path: Path,
    source: str,
    event_log: str | None,
    sample: int,
    options: tuple[str, ...],
    config_file: str | None,
    output: str,
) -> int:
    """Hold a contract against what is registered, the schema registry, and a sample of the event log.

    Exit code 1: it says something else than the definitions, a newest schema lacks what they read, or data break it.
    """
    from featurestore.definitions.schemas.data_contract import differences, object_of, read_contract
    from featurestore.offline.contract_sample import broken_in

    ours = _source(repo, registry, project, source)
    described = object_of(read_contract(path.read_text(encoding="utf-8")), ours.spec)
    found = {"definitions": list(differences(described, ours.spec, ours.expectations, ours.usual_hours))}
    found["schemas"] = _against_schemas(ours, "\n".join(options), config_file or "")
    checked = 0
    if event_log is not None:
        checked, found["data"] = broken_in(event_log, ours.spec, described, sample)
    if output == "json":
        print_json({"source": source, "rows": checked, **found})
    else:
        for what, facts in found.items():
            for fact in facts:
                click.echo(f"{what}: {fact}")
        rows = "" if event_log is None else f", {checked:,} rows of the event log"
        if not any(found.values()):
            click.echo(f"{source} keeps the contract: definitions, schemas{rows}")
    return EXIT_DIFFERS if any(found.values()) else 0


@dataclass(frozen=True)
class _Source:
    """What is registered under a name."""

    project: str
    spec: SourceSpec
    views: list[ViewSpec]
    expectations: list[Expectation]
    usual_hours: list[UsualHours]
    author: Authored


def _source(repo: Path | None, registry: str | None, project: str | None, name: str) -> _Source:
    """What is registered under a name."""
    from featurestore.definitions.registry import compile_registry, read_registry_bytes
    from featurestore.errors import InvalidRequest
    from featurestore.wire.feast.authors import author_of

    settings = load_settings(repo=repo, registry=registry, project=project)
    content = read_registry_bytes(settings.registry)
    spec = compile_registry(content, project=settings.project).require_sound()
    views = [view for view in spec.views if view.source.name == name]
    if not views:
        known = ", ".join(sorted({view.source.name for view in spec.views})) or "none"
        raise InvalidRequest(f'no stream view reads a source "{name}"', hint=f"sources are: {known}")
    expectations = [one for one in spec.expectations if one.source == name]
    hours = [one for one in spec.usual_hours if one.source == name]
    return _Source(
        settings.project, views[0].source, views, expectations, hours, author_of(content, settings.project, name)
    )


def _against_schemas(source: _Source, options: str, config_file: str) -> list[str]:
    """What the newest schemas of the source's registry lack; nothing where it has none."""
    from featurestore.definitions.schemas.breaks import find_breaks
    from featurestore.definitions.schemas.checks import sources_with_schemas
    from featurestore.definitions.schemas.subjects import subjects_of

    facts = []
    for one, views in sources_with_schemas(source.views):
        for subject in subjects_of(one):
            newest = registries("contract", options, config_file).newest(one, subject.name)
            if newest is None:
                facts.append(f'the schema registry has no subject "{subject.name}"')
                continue
            breaks = find_breaks(one, views, subject, newest)
            facts += [f'subject "{subject.name}", column "{each.column}": {each.reason}' for each in breaks]
    return facts
