"""`featurestore lookup`: one row of features, from a running server."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurestore.cli.settings import FiniteRange

if TYPE_CHECKING:
    from featurestore.online.answer.schema import ServiceSchema
    from featurestore.serving.client.result import FeatureValue, LookupResult

DEFAULT_ADDRESS = "127.0.0.1:6566"
TIMEOUT_S_MAX = 86_400.0

SHOWN_ELEMENTS_MAX = 10
"""Elements of a list or map in the table, one a line; JSON has them all."""

_MS_PER_SECOND = 1_000


class MomentType(click.ParamType[int]):
    """ISO 8601 (without a zone: UTC) or milliseconds since 1970, as integer milliseconds; parts of one are cut off."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse one moment."""
        from featurestore.wire.iso8601 import parse_text
        from featurestore.wire.payloads import EVENT_TIME_MS_MAX, EVENT_TIME_MS_MIN, SECONDS_BELOW

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


@click.command("lookup")
@click.argument("service")
@click.argument("entities", nargs=-1, metavar="KEY=VALUE...")
@click.option(
    "--as-of", type=MomentType(), help="Read time, ISO 8601 or milliseconds since 1970. Default: the server's clock."
)
@click.option(
    "--format",
    "output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="A table for people, JSON for programs.",
)
@click.option(
    "--address",
    metavar="HOST:PORT",
    default=DEFAULT_ADDRESS,
    envvar="FEATURESTORE_ADDRESS",
    show_default=True,
    show_envvar=True,
    help="Where the server listens.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=FiniteRange(0, TIMEOUT_S_MAX, min_open=True),
    default=5.0,
    show_default=True,
    help="Seconds, retries included.",
)
@click.option(
    "--tls-ca",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Connect by TLS; PEM authority that signed the server's certificate.",
)
def command(
    service: str,
    entities: tuple[str, ...],
    as_of: int | None,
    output: str,
    address: str,
    timeout_s: float,
    tls_ca: Path | None,
) -> None:
    """Look up the features of one entity row.

    Example: featurestore lookup fraud_detection card_id=c-1 merchant_id=7 terminal_id=12
    """
    from featurestore.serving.client.clients import ClientTls, LookupClient

    tls = None if tls_ca is None else ClientTls(tls_ca)
    with LookupClient(address, timeout_s=timeout_s, tls=tls) as client:
        schema = client.describe(service)
        row = {name: _typed(schema, name, value) for name, value in map(_split, entities)}
        result = client.lookup(service, row, as_of_ms=as_of, with_metadata=True)
    if output == "json":
        click.echo(json.dumps(_as_json(result), indent=2, ensure_ascii=False))
    else:
        _show_table(result)


def _split(text: str) -> tuple[str, str]:
    """KEY=VALUE."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f'"{text}" is not KEY=VALUE, such as card_id=c-1')
    return name, value


def _typed(schema: ServiceSchema, name: str, text: str) -> str | int:
    """A value as the join key's type; the server explains unknown keys."""
    from featurestore.core.spec import ValueType

    is_integer = any(key.name == name and key.type is ValueType.INT64 for key in schema.join_keys)
    if not is_integer:
        return text
    try:
        return int(text)
    except ValueError:
        raise click.UsageError(f'join key "{name}" is an integer, "{text}" is not') from None


def _as_json(result: LookupResult) -> dict[str, object]:
    """Everything that is known of the row."""
    [row] = result.rows()
    values = {name: _plain_json(value) for name, value in row.items()}
    return {
        "feature_service": result.schema.service,
        "as_of_ms": result.as_of_ms[0],
        "features": {name: {"value": value, "status": result.status(name)[0].name} for name, value in values.items()},
        "views": {
            view.view: {
                "event_time_ms": int(view.event_time_ms[0]),
                "freshness_ms": int(view.freshness_ms[0]),
                "positions": [
                    {"topic": each.topic, "partition": each.partition, "next_offset": each.next_offset}
                    for each in (view.positions[0] if view.positions else ())
                ],
            }
            for view in result.views
        },
    }


def _plain_json(value: object) -> object:
    """A value as JSON has it; floats that it has no numbers for become texts, as in protobuf's JSON."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _plain_json(one) for key, one in value.items()}
    return [_plain_json(one) for one in value] if isinstance(value, list) else value


def _show_table(result: LookupResult) -> None:
    """A table on a terminal, columns of text otherwise."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    [row] = result.rows()
    as_of = datetime.fromtimestamp(result.as_of_ms[0] / _MS_PER_SECOND, tz=UTC)
    table = Table(
        title=f"{result.schema.service} as of {as_of.isoformat(timespec='milliseconds')}", title_justify="left"
    )
    table.add_column("feature")
    table.add_column("value", justify="right")
    table.add_column("status")
    table.add_column("view")
    for feature in result.schema.features:
        status = result.status(feature.name)[0].name
        view = result.schema.views[feature.view].name
        table.add_row(feature.name, escape(_text(row[feature.name])), status, view)
    console = Console()
    console.print(table)
    for view_freshness in result.views:
        known = int(view_freshness.freshness_ms[0]) >= 0
        age = (
            f"newest event {int(view_freshness.freshness_ms[0]) / _MS_PER_SECOND:.3f} s before" if known else "no event"
        )
        console.print(f"{view_freshness.view}: {age}")


def _text(value: FeatureValue) -> str:
    """A value for people; the first elements of lists and maps."""
    if value is None:
        return "-"
    if isinstance(value, list | dict):
        shown = [f"{key}: {_text(one)}" for key, one in value.items()] if isinstance(value, dict) else map(_text, value)
        texts = list(islice(shown, SHOWN_ELEMENTS_MAX))
        more = [f"{len(value) - len(texts)} more"] if len(value) > len(texts) else []
        return "\n".join(texts + more) or "(empty)"
    return f"{value:,.4f}" if isinstance(value, float) else str(value)
