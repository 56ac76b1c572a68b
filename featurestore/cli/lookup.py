"""`featurestore lookup`: rows of features, from a running server."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from featurestore.cli.settings import (
    Decorated,
    FiniteRange,
    format_option,
    load_settings,
    print_json,
    settings_options,
)
from featurestore.errors import InvalidRequest

if TYPE_CHECKING:
    from featurestore.core.spec import ValueType
    from featurestore.online.answer.schema import ServiceSchema
    from featurestore.serving.client.clients import LookupClient
    from featurestore.serving.client.result import FeatureValue, LookupResult, ViewFreshness
    from featurestore.serving.client.vector_file import VectorColumns

DEFAULT_ADDRESS = "127.0.0.1:6566"
TIMEOUT_S_MAX = 86_400.0
ROWS_TIMEOUT_S = 60.0
"""Of a thousand rows of a file, for which a server takes its time, unless --timeout says otherwise."""

SHOWN_ELEMENTS_MAX = 10
"""Elements of a list or map in the table, one a line; JSON has them all."""


class MomentType(click.ParamType[int]):
    """ISO 8601 (without a zone: UTC) or milliseconds since 1970, as integer milliseconds; parts of one are cut off."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse one moment."""
        from featurestore.wire.iso8601 import parse_text
        from featurestore.wire.moments import EVENT_TIME_MS_MAX, EVENT_TIME_MS_MIN, SECONDS_BELOW

        text = str(value)
        is_number = text.removeprefix("-").isdecimal()
        moment_ms = int(text) if is_number else parse_text(text)
        if moment_ms is None:
            self.fail(f'"{text}" is neither ISO 8601 nor milliseconds since 1970', param, ctx)
        if is_number and abs(moment_ms) < SECONDS_BELOW:
            self.fail(f"{text} looks like seconds: give milliseconds since 1970, or ISO 8601", param, ctx)
        if not EVENT_TIME_MS_MIN <= moment_ms <= EVENT_TIME_MS_MAX:
            self.fail(f"{text} is not a moment of the years 1 to 9999 in milliseconds since 1970", param, ctx)
        return moment_ms


def server_options(function: Decorated) -> Decorated:
    """How to reach a running server; the command gets `address`, `timeout_s`, `tls_ca`, `tls_cert` and `tls_key`."""
    for option in (
        click.option(
            "--tls-key",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="PEM private key of --tls-cert.",
        ),
        click.option(
            "--tls-cert",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="PEM certificate to present, where the server asks for one; with --tls-key.",
        ),
        click.option(
            "--tls-ca",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Connect by TLS; PEM authority that signed the server's certificate.",
        ),
        click.option(
            "--timeout",
            "timeout_s",
            type=FiniteRange(0, TIMEOUT_S_MAX, min_open=True),
            default=5.0,
            show_default=True,
            help="Seconds, retries included.",
        ),
        click.option(
            "--address",
            metavar="HOST:PORT",
            default=DEFAULT_ADDRESS,
            envvar="FEATURESTORE_ADDRESS",
            show_default=True,
            show_envvar=True,
            help="Where the server listens.",
        ),
    ):
        function = option(function)
    return function


def connect(
    address: str, timeout_s: float, *, tls_ca: Path | None, tls_cert: Path | None, tls_key: Path | None
) -> LookupClient:
    """A client of that server.

    Raises:
        InvalidRequest: a TLS file is not what it should be.
    """
    from featurestore.cli.tls import check_tls_files
    from featurestore.serving.client.clients import ClientTls, LookupClient

    check_tls_files(authority=tls_ca, certificate=tls_cert, key=tls_key)
    tls = ClientTls(tls_ca, tls_cert, tls_key) if tls_ca or tls_cert else None
    return LookupClient(address, timeout_s=timeout_s, tls=tls)


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
@click.option(
    "--entities",
    "entity_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Look up all rows of a Parquet or CSV file; with --out. A thousand rows have a minute, or --timeout.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Parquet file for the rows of --entities and their features; there when it is complete.",
)
@click.option("--statuses", is_flag=True, help="To --out, with a column FEATURE__status beside each feature.")
@click.option("--as-of-column", metavar="NAME", default="", help="To --out, with each row's read time in this column.")
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
    entity_file: Path | None,
    out: Path | None,
    statuses: bool,
    as_of_column: str,
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
        from featurestore.cli.compare import CompareRequest, compare

        settings = load_settings(repo=repo, registry=registry, project=project, store_url=store_url, cluster=cluster)
        compare(settings, CompareRequest(service, versions, _rows_of(_texts(given)), sample, as_of), output)
        return
    if entity_file is None and (out or statuses or as_of_column):
        raise click.UsageError("--out, --statuses and --as-of-column are for the rows of --entities")
    if entity_file is not None and (out is None or given or events):
        raise click.UsageError("give --entities with --out, and no KEY=VALUE nor --event")
    with connect(address, timeout_s, tls_ca=tls_ca, tls_cert=tls_cert, tls_key=tls_key) as client:
        schema = client.describe(service)
        names = _chosen(schema, wanted)
        if entity_file is not None and out is not None:
            from featurestore.serving.client.vector_file import VectorColumns

            is_given = click.get_current_context().get_parameter_source("timeout_s") is not ParameterSource.DEFAULT
            added = VectorColumns(names, statuses, as_of_column)
            rows_timeout_s = timeout_s if is_given else ROWS_TIMEOUT_S
            count = _write_vectors(client, schema, entity_file, out, added, as_of_ms=as_of, timeout_s=rows_timeout_s)
            click.echo(f"{out}: {count:,} rows, {len(names)} features")
            return
        columns = entity_columns(schema, given)
        of_request = {column.name for column in schema.request_columns} - {key.name for key in schema.join_keys}
        request = {name: values for name, values in columns.items() if name in of_request}
        columns = {name: values for name, values in columns.items() if name not in request}
        row_count = len(next(iter((columns | request).values()), [None]))
        in_flight = _events(schema, events, row_count)
        result = client.lookup(service, columns, request=request, as_of_ms=as_of, with_metadata=True, events=in_flight)
    rows = range(result.row_count)
    entity_rows = [{name: values[row] for name, values in columns.items()} for row in rows]
    request_rows = [{name: values[row] for name, values in request.items()} for row in rows]
    if output == "table":
        for row in rows:
            _show_table(result, row, {**entity_rows[row], **request_rows[row]}, names)
        return
    found = [_as_json(result, row, entity_rows[row], request_rows[row], names) for row in rows]
    print_json(found[0] if len(found) == 1 else found)


def _write_vectors(
    client: LookupClient,
    schema: ServiceSchema,
    entity_file: Path,
    out: Path,
    added: VectorColumns,
    *,
    as_of_ms: int | None,
    timeout_s: float,
) -> int:
    """Look up the rows of a file, with a bar on a terminal; how many they were."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from featurestore.serving.client.entity_file import EntityFile
    from featurestore.serving.client.vector_file import write_vectors

    if out.suffix.lower() == ".csv":
        raise click.UsageError(f'"{out}" would be a Parquet file: let its name end in .parquet')
    if out.exists() and out.samefile(entity_file):
        raise click.UsageError(f'"{out}" is read, and would be written over: name another file')
    entities = EntityFile(entity_file, schema.join_keys)
    console = Console(stderr=True)
    bars = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*bars, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("rows", total=entities.row_count)
        return write_vectors(
            client,
            schema,
            entities,
            out,
            columns=added,
            as_of_ms=as_of_ms,
            timeout_s=timeout_s,
            progress=lambda done: progress.update(task, completed=done),
        )


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


def entity_columns(schema: ServiceSchema, given: Sequence[str]) -> dict[str, list[Any]]:
    """Join key or column of the request -> a value for each row; what is given once is so in every row.

    Raises:
        InvalidRequest: a name is neither; where there are no columns the server says so of join keys.
    """
    from featurestore.definitions.problems import suggest

    texts, known = _texts(given), [column.name for column in (*schema.join_keys, *schema.request_columns)]
    for name in texts:
        if schema.request_columns and name not in known:
            fact = f'"{name}" is no join key of feature service "{schema.service}", and no column of its requests'
            raise InvalidRequest(fact, hint=suggest(name, known))
    columns = {name: [_typed(schema, name, text) for text in found] for name, found in texts.items()}
    return _rows_of(columns, {column.name for column in schema.request_columns})


def _texts(given: Sequence[str]) -> dict[str, list[str]]:
    """Join key or column of the request -> its values, as typed."""
    columns: dict[str, list[str]] = {}
    for name, value in map(_split, given):
        columns.setdefault(name, []).append(value)
    return columns


def _rows_of(columns: Mapping[str, list[Any]], of_request: Collection[str] = ()) -> dict[str, list[Any]]:
    """The same with a value for each row; what is given once is so in every row."""
    row_count = max(map(len, columns.values()), default=1)
    for name, values in columns.items():
        if len(values) not in (1, row_count):
            is_column = name in of_request
            counts = f"has {len(values)} values where another has {row_count}"
            raise click.UsageError(
                f'{"column" if is_column else "join key"} "{name}" {counts}: give it one, or one a row'
            )
    return {name: values if len(values) == row_count else values * row_count for name, values in columns.items()}


def _events(schema: ServiceSchema, texts: Sequence[str], row_count: int) -> dict[str, dict[str, list[Any]]]:
    """Source -> column -> a value for each row; what is given once is so in every row."""
    from featurestore.definitions.problems import suggest

    events: dict[str, dict[str, list[Any]]] = {}
    sources = {source.name: source for source in schema.event_sources}
    for text in texts:
        name, value = _split(text, "amount=1250")
        source, _, column = name.rpartition(":")
        if not source and len(sources) != 1:
            raise click.UsageError(f'"{text}" does not say of which source: {", ".join(sources) or "there is none"}')
        source = source or next(iter(sources))
        if source not in sources:
            raise InvalidRequest(
                f'feature service "{schema.service}" has no features of source "{source}"',
                hint=suggest(source, list(sources)),
            )
        types = {each.name: each.type for each in (*sources[source].columns, *schema.join_keys)}
        if column not in types:
            raise InvalidRequest(
                f'feature service "{schema.service}" reads no column "{column}" of source "{source}"',
                hint=suggest(column, list(types)),
            )
        events.setdefault(source, {}).setdefault(column, []).append(_event_value(column, types[column], value))
    for columns in events.values():
        for column, values in columns.items():
            if len(values) not in (1, row_count):
                raise click.UsageError(
                    f'"{column}" has {len(values)} values for {row_count} rows: give one, or one a row'
                )
            columns[column] = values if len(values) == row_count else values * row_count
    return events


def _event_value(column: str, value_type: ValueType, text: str) -> str | int | float | None:
    """A value of an event as its column's type."""
    from featurestore.core.spec import ValueType

    if not text:
        return None
    try:
        if value_type is ValueType.BOOL:
            return {"true": 1, "false": 0}[text.lower()]
        if value_type is ValueType.TIMESTAMP:
            return MomentType().convert(text, None, None)
        if value_type is ValueType.INT64:
            return int(text)
        return float(text) if value_type is ValueType.FLOAT64 else text
    except (ValueError, KeyError):
        raise click.UsageError(f'column "{column}" is {value_type.value}, "{text}" is not') from None


def _split(text: str, example: str = "card_id=c-1") -> tuple[str, str]:
    """KEY=VALUE."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f'"{text}" is not KEY=VALUE, such as {example}')
    return name, value


def _typed(schema: ServiceSchema, name: str, text: str) -> str | int | float | None:
    """A value as the join key's or column's type; the server explains unknown keys."""
    from featurestore.core.spec import ValueType

    keys = {key.name for key in schema.join_keys}
    types = {column.name: column.type for column in schema.request_columns if column.name not in keys}
    if name in types:
        return _value(name, text, types[name])
    is_integer = any(key.name == name and key.type is ValueType.INT64 for key in schema.join_keys)
    if not is_integer:
        return text
    try:
        return int(text)
    except ValueError:
        raise click.UsageError(f'join key "{name}" is an integer, "{text}" is not') from None


def _value(name: str, text: str, value_type: ValueType) -> str | int | float | None:
    """A value of a column of the request; nothing is null."""
    from featurestore.core.spec import ValueType

    if not text:
        return None
    try:
        if value_type is ValueType.INT64:
            return int(text)
        if value_type is ValueType.FLOAT64:
            return float(text)
        if value_type is ValueType.BOOL:
            return {"true": True, "false": False}[text.lower()]
    except (ValueError, KeyError):
        raise click.UsageError(f'column "{name}" is of type {value_type.value}, "{text}" is not') from None
    if value_type is ValueType.TIMESTAMP:
        return MomentType().convert(text, None, None)
    return text


def _as_json(
    result: LookupResult, row: int, entity: Mapping[str, object], request: Mapping[str, object], names: Sequence[str]
) -> dict[str, object]:
    """Everything that is known of a row."""
    values = result.rows()[row]
    return {
        "feature_service": result.schema.service,
        "entity": entity,
        **({"request": request} if request else {}),
        "as_of_ms": _as_of_ms(result, row),
        "features": {
            name: {"value": plain_json(values[name]), "status": result.status(name)[row].name} for name in names
        },
        "views": {
            view.view: {
                "event_time_ms": int(view.event_time_ms[row]),
                "freshness_ms": int(view.freshness_ms[row]),
                "positions": [
                    {"topic": each.topic, "partition": each.partition, "next_offset": each.next_offset}
                    for each in (view.positions[row] if view.positions else ())
                ],
            }
            for view in _views_of(result, names)
        },
    }


def _as_of_ms(result: LookupResult, row: int) -> int:
    """The read time of a row."""
    return result.as_of_ms[row if len(result.as_of_ms) > 1 else 0]


def _views_of(result: LookupResult, names: Sequence[str]) -> list[ViewFreshness]:
    """Those that the features are of."""
    views = {result.schema.views[feature.view].name for feature in result.schema.features if feature.name in names}
    return [view for view in result.views if view.view in views]


def plain_json(value: object) -> object:
    """A value as JSON has it; floats that it has no numbers for become texts, as in protobuf's JSON."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: plain_json(one) for key, one in value.items()}
    return [plain_json(one) for one in value] if isinstance(value, list) else value


def _show_table(result: LookupResult, row: int, entity: Mapping[str, object], names: Sequence[str]) -> None:
    """A table on a terminal, columns of text otherwise."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from featurestore.core.spec import ValueType
    from featurestore.core.windows.durations import readable_duration

    values = result.rows()[row]
    whose = ", ".join(f"{name}={value}" for name, value in entity.items())
    title = f"{result.schema.service} of {whose or 'everybody'} as of {moment_text(_as_of_ms(result, row))}"
    table = Table(title=escape(title), title_justify="left")
    table.add_column("feature", overflow="fold")
    table.add_column("value", justify="right", overflow="fold")
    table.add_column("status", no_wrap=True)
    table.add_column("view", overflow="fold")
    for feature in result.schema.features:
        if feature.name not in names:
            continue
        value = values[feature.name]
        is_moment = feature.type is ValueType.TIMESTAMP and isinstance(value, int)
        text = moment_text(int(value)) if is_moment else value_text(value)  # type: ignore[arg-type]  # an int, then
        status = result.status(feature.name)[row].name
        table.add_row(feature.name, escape(text), status, result.schema.views[feature.view].name)
    console = Console()
    console.print(table)
    for view in _views_of(result, names):
        freshness_ms = int(view.freshness_ms[row])
        age = (
            f"newest event {moment_text(int(view.event_time_ms[row]))}, {readable_duration(freshness_ms)} before"
            if freshness_ms >= 0
            else "no event"
        )
        console.print(f"{view.view}: {age}", highlight=False)


def moment_text(moment_ms: int) -> str:
    """ISO 8601, as `--as-of` takes it."""
    moment = datetime.fromtimestamp(0, tz=UTC) + timedelta(milliseconds=moment_ms)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def value_text(value: FeatureValue) -> str:
    """A value for people; the first elements of lists and maps."""
    if value is None:
        return "-"
    if isinstance(value, list | dict):
        shown = (
            [f"{key}: {value_text(one)}" for key, one in value.items()]
            if isinstance(value, dict)
            else map(value_text, value)
        )
        texts = list(islice(shown, SHOWN_ELEMENTS_MAX))
        more = [f"{len(value) - len(texts)} more"] if len(value) > len(texts) else []
        return "\n".join(texts + more) or "(empty)"
    return f"{value:,.4f}" if isinstance(value, float) else str(value)
