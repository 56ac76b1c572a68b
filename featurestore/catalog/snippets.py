"""How a service is asked, ready to be pasted: command line, Python, gRPC, REST, and its history."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from featurestore.core.spec import Column, RepoSpec, ServiceSpec, ValueType

GRPC_ADDRESS, HTTP_ADDRESS = "127.0.0.1:6566", "127.0.0.1:8080"
"""Where a server listens that nobody has told otherwise; the second one with `--http 8080`."""

_EXAMPLES = {ValueType.INT64: 42, ValueType.FLOAT64: 4.2, ValueType.BOOL: True, ValueType.TIMESTAMP: 1_767_225_600_000}


@dataclass(frozen=True, slots=True)
class Snippet:
    """One way to ask.

    Attributes:
        title: what it is.
        language: of the text: "bash" or "python".
        text: to be pasted as it is.
        note: what must be there for it to work; "" for nothing.
    """

    title: str
    language: str
    text: str
    note: str = ""


def snippets_of(
    spec: RepoSpec, service: ServiceSpec, now_ms: int, *, address: str = GRPC_ADDRESS, http: str = HTTP_ADDRESS
) -> list[Snippet]:
    """All ways to ask a service for one entity.

    Args:
        spec: the project.
        service: of it.
        now_ms: label time of the example of history.
        address: of the server's gRPC port.
        http: of its HTTP port.
    """
    name, keys, request = service.name, service.join_keys, request_columns(spec, service)
    return [
        Snippet("Command line", "bash", _command(name, keys, request, address)),
        Snippet("Python", "python", _python(name, keys, request, address), 'pip install "featurestore[client]"'),
        Snippet("gRPC", "bash", _grpc(name, keys, request, address), "grpcurl; the server has reflection"),
        Snippet("REST", "bash", _rest(name, keys, request, http), "a server with --http"),
        Snippet("History", "bash", _history(name, (*keys, *request), now_ms), "an event log"),
    ]


def request_columns(spec: RepoSpec, service: ServiceSpec) -> list[Column]:
    """What a request brings beside its keys, by name."""
    found: dict[str, Column] = {}
    for view in dict.fromkeys(one.view for one in service.features):
        on_demand = spec.on_demand_view(view)
        found |= {one.name: one for one in (() if on_demand is None else on_demand.request_columns)}
    keys = {key.name for key in service.join_keys}
    return [found[name] for name in sorted(found) if name not in keys]


def example_of(column: Column) -> str | int | float | bool:
    """A value of a column's type, which nobody takes for a real one."""
    return _EXAMPLES.get(column.type, f"{column.name}-1")


def _command(name: str, keys: Sequence[Column], request: Sequence[Column], address: str) -> str:
    given = [f"{one.name}={_plain(example_of(one))}" for one in (*keys, *request)]
    where = "" if address == GRPC_ADDRESS else f" --address {address}"
    return " ".join(("featurestore lookup", name, *given)) + where


def _python(name: str, keys: Sequence[Column], request: Sequence[Column], address: str) -> str:
    entities = {one.name: example_of(one) for one in keys}
    more = f", request={ {one.name: example_of(one) for one in request}!r}" if request else ""
    return (
        "from featurestore.client import LookupClient\n\n"
        f'with LookupClient("{address}", timeout_s=1.0) as client:\n'
        f'    result = client.lookup("{name}", {entities!r}{more})\n'
        "print(result.rows()[0])"
    )


def _grpc(name: str, keys: Sequence[Column], request: Sequence[Column], address: str) -> str:
    body: dict[str, object] = {"feature_service": name}
    if keys:
        body["entities"] = [{"join_key": one.name, **_packed(one)} for one in keys]
    if request:
        body["columns"] = [{"name": one.name, **_packed(one)} for one in request]
    method = "featurestore.v1.FeatureLookup/Lookup"
    return f"grpcurl -plaintext -d '{json.dumps(body)}' \\\n    {address} {method}"


def _rest(name: str, keys: Sequence[Column], request: Sequence[Column], http: str) -> str:
    body: dict[str, object] = {"entities": {one.name: [example_of(one)] for one in keys}}
    if request:
        body["columns"] = {one.name: [example_of(one)] for one in request}
    return f"curl -sS http://{http}/v1/services/{name}:lookup -d '{json.dumps(body)}'"


def _history(name: str, columns: Sequence[Column], now_ms: int) -> str:
    moment = datetime.fromtimestamp(now_ms // 60_000 * 60, tz=UTC).strftime("%Y-%m-%dT%H:%MZ")
    header = ",".join([*(one.name for one in columns), "event_timestamp"])
    row = ",".join([*(_plain(example_of(one)) for one in columns), moment])
    return (
        f"cat > labels.csv <<'END'\n{header}\n{row}\nEND\n"
        f"featurestore history --entities labels.csv --service {name} --out train.parquet"
    )


def _packed(column: Column) -> dict[str, list[object]]:
    """A value in the list of a message that its type takes."""
    value = example_of(column)
    if isinstance(value, str):
        return {"strings": [value]}
    return {"doubles": [value]} if isinstance(value, float) else {"integers": [int(value)]}


def _plain(value: str | int | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
