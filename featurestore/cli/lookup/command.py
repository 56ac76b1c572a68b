"""`featurestore lookup`: rows of features, from a running server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurestore.cli.lookup.given import MomentType, entity_columns, event_columns, rows_of, texts_of
from featurestore.cli.lookup.screen import as_json, show_table
from featurestore.cli.lookup.server import connect, server_options
from featurestore.cli.lookup.vectors import RowFile, look_up_rows, row_file_options, rows_timeout_s
from featurestore.cli.settings import (
    format_option,
    load_settings,
    print_json,
    settings_options,
)
from featurestore.errors import InvalidRequest

if TYPE_CHECKING:
    from featurestore.online.answer.schema import ServiceSchema


@click.command("lookup")
@click.argument("service")
@click.argument("given", nargs=-1, metavar="KEY=VALUE...")
@click.option(
    "--as-of", type=MomentType(), help="Read time, ISO 8601 or milliseconds since 1970. Default: the server's clock."
)
@click.option(
    "--feature",
    "wanted",
    multiple=True,
    metavar="[VIEW:]FEATURE",
    help="Show only this feature of the service; may be repeated.",
)
@click.option(
    "--event",
    "events",
    multiple=True,
    metavar="[SOURCE:]COLUMN=VALUE",
    help="A column of the payment in flight, which features count beside the payments before it; nothing after the ="
    " is null. Repeat it for each column that the service reads, the event time among them.",
)
@row_file_options
@format_option
@server_options
@click.option(
    "--compare",
    "versions",
    nargs=2,
    metavar="VERSION VERSION",
    help="Two versions of a view, such as v1 latest, feature by feature; read from the store, not from a server.",
)
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    default=1_000,
    show_default=True,
    help="For --compare without KEY=VALUE: entities, of those that the store has.",
)
@settings_options
def command(
    service: str,
    given: tuple[str, ...],
    as_of: int | None,
    wanted: tuple[str, ...],
    events: tuple[str, ...],
    row_file: RowFile | None,
    output: str,
    address: str,
    timeout_s: float,
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    versions: tuple[str, str] | None,
    sample: int,
    repo: Path | None,
    registry: str | None,
    project: str | None,
    store_url: str | None,
    cluster: bool | None,
) -> None:
    """Look up the features of entities. A key that is given more than once makes a row of each of its values.

    Columns that features read of the request, such as the amount of the payment, are given in the same way; an empty
    value is null.

    Example: featurestore lookup fraud_detection card_id=c-1 merchant_id=7 terminal_id=12

    With --compare it shows how many rows differ between two versions of a view, by how much, and how many are null. The
    repo and the store are asked for that alone.

    A job's rows come from a file: featurestore lookup fraud_detection --entities rows.parquet --out vectors.parquet
    """
    if versions:
        from featurestore.cli.lookup.compare import CompareRequest, compare

        settings = load_settings(repo=repo, registry=registry, project=project, store_url=store_url, cluster=cluster)
        compare(settings, CompareRequest(service, versions, rows_of(texts_of(given)), sample, as_of), output)
        return
    if row_file is not None and (given or events):
        raise click.UsageError("give --entities, or KEY=VALUE and --event")
    with connect(address, timeout_s, tls_ca=tls_ca, tls_cert=tls_cert, tls_key=tls_key) as client:
        schema = client.describe(service)
        names = _chosen(schema, wanted)
        if row_file is not None:
            look_up_rows(client, schema, row_file, names, as_of_ms=as_of, timeout_s=rows_timeout_s(timeout_s))
            return
        columns = entity_columns(schema, given)
        of_request = {column.name for column in schema.request_columns} - {key.name for key in schema.join_keys}
        request = {name: values for name, values in columns.items() if name in of_request}
        columns = {name: values for name, values in columns.items() if name not in request}
        in_flight = event_columns(schema, events, len(next(iter((columns | request).values()), [None])))
        result = client.lookup(service, columns, request=request, as_of_ms=as_of, with_metadata=True, events=in_flight)
    rows = range(result.row_count)
    entity_rows = [{name: values[row] for name, values in columns.items()} for row in rows]
    request_rows = [{name: values[row] for name, values in request.items()} for row in rows]
    if output == "table":
        for row in rows:
            show_table(result, row, {**entity_rows[row], **request_rows[row]}, names)
        return
    found = [as_json(result, row, entity_rows[row], request_rows[row], names) for row in rows]
    print_json(found[0] if len(found) == 1 else found)


def _chosen(schema: ServiceSchema, wanted: Sequence[str]) -> list[str]:
    """Names of the features to show.

    Raises:
        InvalidRequest: the service has no such feature.
    """
    from featurestore.definitions.problems import suggest

    names = {feature.name: feature.name for feature in schema.features}
    names |= {f"{schema.views[feature.view].name}:{feature.name}": feature.name for feature in schema.features}
    for name in wanted:
        if name not in names:
            known = [one for one in names if (":" in one) == (":" in name)]
            raise InvalidRequest(
                f'feature service "{schema.service}" has no feature "{name}"', hint=suggest(name, known)
            )
    chosen = {names[name] for name in wanted}
    return [feature.name for feature in schema.features if not chosen or feature.name in chosen]
