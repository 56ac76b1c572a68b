"""`featurestore explain`: why a row has its values, from a running server, the feature log and the event log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from featurestore.cli.lookup.given import MomentType, entity_columns, event_columns
from featurestore.cli.lookup.server import connect, server_options
from featurestore.cli.settings import EVENT_LOG_VARIABLE, format_option, load_settings, print_json, registry_options
from featurestore.errors import InvalidRequest

if TYPE_CHECKING:
    from featurestore.offline.parity.feature_log_json import LoggedMessage
    from featurestore.offline.parity.recount import Recount
    from featurestore.online.answer.explaining.explanation import Explanation
    from featurestore.online.answer.schema import ServiceSchema

_NOT_ANSWERED = 0
"""Status of a value that a refused lookup does not give."""


@click.command("explain")
@click.argument("service")
@click.argument("entities", nargs=-1, metavar="[KEY=VALUE...]")
@click.option(
    "--feature",
    "wanted",
    multiple=True,
    metavar="[VIEW:]FEATURE",
    help="Explain only this feature of the service, tile by tile; may be repeated. Default: all, a line each.",
)
@click.option(
    "--as-of", type=MomentType(), help="Read time, ISO 8601 or milliseconds since 1970. Default: the server's clock."
)
@click.option(
    "--event",
    "payment",
    multiple=True,
    metavar="[SOURCE:]COLUMN=VALUE",
    help="A column of the payment in flight, as in `featurestore lookup`; the row is explained at its time.",
)
@click.option(
    "--event-log",
    "events",
    metavar="DIR|URI",
    envvar=EVENT_LOG_VARIABLE,
    show_envvar=True,
    help="Recount from the event logs, and show the events. Default: no recount.",
)
@click.option(
    "--feature-log",
    metavar="DIR|URI|FILE.jsonl",
    help="Take the row, and what was answered then, from this feature log; with --request-id.",
)
@click.option("--request-id", metavar="ID", help="Which request of the feature log.")
@click.option("--request-row", type=click.IntRange(min=0), default=0, show_default=True, help="Which row of it.")
@format_option
@server_options
@registry_options
def command(
    service: str,
    entities: tuple[str, ...],
    wanted: tuple[str, ...],
    as_of: int | None,
    payment: tuple[str, ...],
    events: str | None,
    feature_log: str | None,
    request_id: str | None,
    request_row: int,
    output: str,
    address: str,
    timeout_s: float,
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    repo: Path | None,
    project: str | None,
    registry: str | None,
) -> None:
    """Why has a feature this value? What it is, its window, and what was merged, tile by tile.

    Give the row's entity, now or at a moment; or a row of the feature log, to see why a payment was declined. With an
    event log the features are recounted from the events themselves; only then are the registry's options needed.

    Columns that features read of the request are given like join keys. The feature log has them, and the payment in
    flight.

    Example: featurestore explain fraud_detection card_id=c-1 merchant_id=7 terminal_id=12 --feature card_count_1h
    """
    from featurestore.cli.explain.case import Case
    from featurestore.cli.explain.screen import show

    logged = _logged(service, as_of, feature_log, request_id, request_row)
    with connect(address, timeout_s, tls_ca=tls_ca, tls_cert=tls_cert, tls_key=tls_key) as client:
        schema = client.describe(service)
        entity, request, in_flight = _asked(schema, entities, payment, logged)
        as_of = as_of if logged is None else logged.as_of_ms
        explanation = client.explain(
            service, entity, as_of_ms=as_of, features=wanted, request=request, events=in_flight
        )
    recount = None
    if events is not None:
        message = _message(explanation, logged, schema)
        recount = _recount(explanation, message, events, repo=repo, project=project, registry=registry)
    case = Case(explanation, logged, recount)
    if output == "json":
        print_json(case.content())
    else:
        show(case, in_detail=bool(wanted))


def _asked(
    schema: ServiceSchema, given: tuple[str, ...], payment: tuple[str, ...], logged: LoggedMessage | None
) -> tuple[dict[str, Any], dict[str, Any], dict[str, dict[str, Any]]]:
    """Join keys, columns of the request and payments in flight, by name: as they are given, or as they were logged."""
    columns = entity_columns(schema, given)
    if any(len(values) > 1 for values in columns.values()):
        raise click.UsageError("give each join key once: one row is explained at a time")
    keys = {key.name for key in schema.join_keys}
    of_request = {column.name for column in schema.request_columns} - keys
    request = {name: values[0] for name, values in columns.items() if name in of_request}
    entity = {name: values[0] for name, values in columns.items() if name not in of_request}
    if logged is None:
        return entity, request, _one_row(event_columns(schema, payment, 1))
    if entity:
        raise click.UsageError("the feature log says whose row it was: leave the join keys out")
    if payment:
        raise click.UsageError("the feature log has the payment in flight, if there was one: leave --event out")
    entity = {name: value for name, value in logged.entities.items() if name in keys}
    # A log of an earlier release has no columns of the request: then they are given beside the row.
    request |= {name: one.value for name, one in logged.request.items() if name in of_request}
    return (
        entity,
        request,
        {source: {name: one.value for name, one in row.items()} for source, row in logged.events.items()},
    )


def _one_row(events: dict[str, dict[str, list[Any]]]) -> dict[str, dict[str, Any]]:
    """The columns of payments of one row."""
    return {source: {name: values[0] for name, values in columns.items()} for source, columns in events.items()}


def _logged(
    service: str,
    as_of: int | None,
    feature_log: str | None,
    request_id: str | None,
    request_row: int,
) -> LoggedMessage | None:
    """The row of the feature log that is asked about, if one is."""
    if feature_log is None and request_id is None:
        return None
    if feature_log is None or request_id is None:
        raise click.UsageError("give --feature-log and --request-id together")
    if as_of is not None:
        raise click.UsageError("the feature log says when it was: leave --as-of out")
    from featurestore.offline.parity.feature_log_json import find_message

    return find_message(feature_log, request_id, service=service, request_row=request_row)


def _recount(
    explanation: Explanation,
    message: LoggedMessage,
    events: str,
    *,
    repo: Path | None,
    project: str | None,
    registry: str | None,
) -> Recount:
    """What the event log says of the row: as it was logged, else as it is answered now."""
    from featurestore.definitions.registry import read_registry
    from featurestore.offline.parity.recount import recount

    settings = load_settings(repo=repo, project=project, registry=registry)
    spec = read_registry(settings.registry, project=settings.project)
    if not any(spec.view(name) for name in message.views):
        raise InvalidRequest(
            f'nothing of feature service "{explanation.service}" can be recounted from an event log',
            hint="only stream views that are registered can be",
        )
    return recount(spec, message, events)


def _message(explanation: Explanation, logged: LoggedMessage | None, schema: ServiceSchema) -> LoggedMessage:
    """The row as a feature log would have it, with just the features that are explained, and those that they read."""
    from featurestore.offline.parity.feature_log_json import LoggedCell, LoggedMessage, LoggedPart, LoggedValue

    parts = {}
    explained = [one for feature in explanation.features for one in (feature, *feature.reads)]
    for number, view in enumerate(explanation.views):
        mine = [feature for feature in explained if feature.view == number]
        then = None if logged is None else logged.views.get(view.name)
        if then is not None:
            names = {feature.feature for feature in mine}
            cells = {name: cell for name, cell in then.features.items() if name in names}
            if cells:
                parts[view.name] = LoggedPart(then.definition_hash, then.event_time_ms, then.positions, cells)
        elif logged is None:
            parts[view.name] = LoggedPart(
                view.definition_hash,
                view.event_time_ms or None,
                [(at.topic, at.partition, at.next_offset) for at in view.positions],
                {
                    one.feature: LoggedCell(one.value, one.type, _NOT_ANSWERED if one.status is None else one.status)
                    for one in mine
                },
            )
    if logged is not None:
        return msgspec.structs.replace(logged, views=parts)
    types = {column.name: column.type for column in schema.request_columns}
    columns = {source.name: {column.name: column.type for column in source.columns} for source in schema.event_sources}
    return LoggedMessage(
        request_id="",
        request_row=0,
        service=explanation.service,
        logged_at_ms=explanation.as_of_ms,
        as_of_ms=explanation.as_of_ms,
        entities=dict(explanation.entity),
        views=parts,
        request={name: LoggedValue(value, types[name]) for name, value in explanation.request.items()},
        events={
            source: {name: LoggedValue(value, columns[source][name]) for name, value in event.items()}
            for source, event in explanation.events.items()
        },
    )
