"""`featurestore explain`: why a row has its values, from a running server, the feature log and the event log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featurestore.cli.lookup.given import MomentType, entity_columns
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

    Columns that features read of the request are given like join keys; the feature log does not keep them.

    Example: featurestore explain fraud_detection card_id=c-1 merchant_id=7 terminal_id=12 --feature card_count_1h
    """
    from featurestore.cli.explain.case import Case
    from featurestore.cli.explain.screen import show

    logged = _logged(service, as_of, feature_log, request_id, request_row)
    with connect(address, timeout_s, tls_ca=tls_ca, tls_cert=tls_cert, tls_key=tls_key) as client:
        entity, request = _asked(client.describe(service), entities, logged)
        as_of = as_of if logged is None else logged.as_of_ms
        explanation = client.explain(service, entity, as_of_ms=as_of, features=wanted, request=request)
    recount = None
    if events is not None:
        recount = _recount(explanation, logged, events, repo=repo, project=project, registry=registry)
    case = Case(explanation, logged, recount)
    if output == "json":
        print_json(case.content())
    else:
        show(case, in_detail=bool(wanted))


def _asked(
    schema: ServiceSchema, given: tuple[str, ...], logged: LoggedMessage | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Join keys and columns of the request, by name: as they are given, the keys as they were logged."""
    columns = entity_columns(schema, given)
    if any(len(values) > 1 for values in columns.values()):
        raise click.UsageError("give each join key once: one row is explained at a time")
    keys = {key.name for key in schema.join_keys}
    of_request = {column.name for column in schema.request_columns} - keys
    request = {name: values[0] for name, values in columns.items() if name in of_request}
    entity = {name: values[0] for name, values in columns.items() if name not in of_request}
    if logged is None:
        return entity, request
    if entity:
        raise click.UsageError("the feature log says whose row it was: leave the join keys out")
    return {name: value for name, value in logged.entities.items() if name in keys}, request


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
    logged: LoggedMessage | None,
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
    message = _message(explanation, logged)
    if not any(spec.view(name) for name in message.views):
        raise InvalidRequest(
            f'nothing of feature service "{explanation.service}" can be recounted from an event log',
            hint="only stream views that are registered can be",
        )
    return recount(spec, message, events)


def _message(explanation: Explanation, logged: LoggedMessage | None) -> LoggedMessage:
    """The row as a feature log would have it, with just the features that are explained."""
    from featurestore.offline.parity.feature_log_json import LoggedCell, LoggedMessage, LoggedPart

    parts = {}
    for number, view in enumerate(explanation.views):
        mine = [feature for feature in explanation.features if feature.view == number]
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
    return LoggedMessage(
        request_id="" if logged is None else logged.request_id,
        request_row=0 if logged is None else logged.request_row,
        service=explanation.service,
        logged_at_ms=explanation.as_of_ms if logged is None else logged.logged_at_ms,
        as_of_ms=explanation.as_of_ms,
        entities=dict(explanation.entity),
        views=parts,
    )
