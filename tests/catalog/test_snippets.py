"""What a page offers to be pasted works when it is pasted, and its SQL says what training sets say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import grpc
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.protobuf import json_format

from featurestore.catalog.history_sql import history_sql
from featurestore.catalog.model import Catalog
from featurestore.catalog.snippets import snippets_of
from featurestore.clock import SystemClock
from featurestore.core.spec.access import AccessSpec
from featurestore.online.redis.store import connect
from featurestore.serving._generated import lookup_pb2 as pb
from featurestore.serving.rpc.listening import ServerSettings
from featurestore.serving.server import FeatureServer
from featurestore.training import FileHistory, build_training_set
from featurestore.wire.feast.protos import message_class
from tests.catalog.site import fill
from tests.docs.pages import clean_environment
from tests.serving.payments import RegistryInMemory

NOON_MS = 1_795_996_800_000
HOUR_MS = 3_600_000
EVENTS, CARDS = 600, 4


def payments_table(seed: int) -> pa.Table:
    """Ten days of payments with nulls, late ones, repeats, and some on the edges of windows."""
    random = np.random.default_rng(seed)
    times = NOON_MS - random.integers(0, 10 * 24 * HOUR_MS, EVENTS)
    times[:200] = NOON_MS - random.integers(0, 48, 200) * HOUR_MS + random.integers(-1, 2, 200)
    ids = random.integers(0, EVENTS * 4, EVENTS)
    first = {number: at for at, number in reversed(list(enumerate(ids.tolist())))}
    source = np.array([first[number] for number in ids.tolist()])  # a repeat is the same record again
    amounts = random.integers(-50, 90_000, EVENTS)[source]
    return pa.table(
        {
            "partition": pa.array(np.zeros(EVENTS, dtype=np.int64)),
            "offset": pa.array(np.arange(EVENTS)),
            "event_time_ms": pa.array(times[source]),
            "payment_id": pa.array([f"p-{number}" for number in ids]),
            "paid_at": pa.array(times[source] * 1_000, pa.timestamp("us", "UTC")),
            "card_id": pa.array([f"c-{number % CARDS}" for number in source]),
            "merchant_id": pa.array(source % 3),
            "market": pa.array(["DE" if number % 4 else "XX" for number in source]),
            "email": pa.array(["a@example.com"] * EVENTS),
            "amount": pa.array([None if number % 7 == 0 else int(amounts[number]) for number in range(EVENTS)]),
            "is_declined": pa.array(source % 3 == 0),
        }
    )


def without_permissions(registry: Path, path: Path) -> Path:
    """The same registry, for everybody."""
    message: Any = message_class("feast.core.Registry")()
    message.ParseFromString(registry.read_bytes())
    message.ClearField("permissions")
    path.write_bytes(message.SerializeToString())
    return path


@pytest.mark.parametrize("seed", [1, 2])
def test_the_sql_of_a_feature_gives_what_a_training_set_has(catalog: Catalog, seed: int) -> None:
    """Windows to the millisecond, computed columns, conditions, contracts and repeats; by another engine."""
    payments = payments_table(seed)  # DuckDB finds it by its name
    spec, compared = replace(catalog.spec, access=AccessSpec()), 0
    for view in catalog.spec.views:
        key = view.join_keys[0].name
        of_key = payments[key].unique()
        moments = pa.array([NOON_MS] * len(of_key))
        labels = pa.table({key: of_key, "event_timestamp": moments.cast(pa.timestamp("ms", "UTC"))})
        wanted = [f"{view.name}:{one.name}" for one in view.features]
        expected = build_training_set(spec, wanted, labels, history=FileHistory(payments))
        for feature in view.features:
            sql = history_sql(view, feature, NOON_MS)
            if not sql:
                assert feature.name == "email_last_1d"
                continue
            found = dict(duckdb.execute(sql).fetchall())
            for entity, value in zip(expected[key].to_pylist(), expected[feature.name].to_pylist(), strict=True):
                nothing = 0 if feature.function in ("count", "sum") else None
                other = found.get(entity, nothing)
                assert other == (value if value is None else pytest.approx(value, rel=1e-9)), sql
                compared += bool(value)

    assert compared > 15


def test_every_snippet_answers_when_it_is_pasted(
    catalog: Catalog, registry: Path, redis_url: str, tmp_path: Path
) -> None:
    """Command line, Python, gRPC, REST and history, each against what really runs."""
    fill(redis_url, catalog.spec)
    service = catalog.spec.service("card_check")
    assert service is not None
    pq.write_table(payments_table(3), tmp_path / "payments.parquet")
    pasted = {
        **clean_environment(),
        "FEATURESTORE_EVENT_LOG": str(tmp_path / "payments.parquet"),
        "FEATURESTORE_REGISTRY": str(without_permissions(registry, tmp_path / "registry.db")),
        "FEATURESTORE_PROJECT": catalog.spec.project,
    }
    open_to_all = RegistryInMemory(catalog.spec)
    store = connect(redis_url)
    server = FeatureServer(open_to_all, store, SystemClock(), ServerSettings(port=0), http_port=0)
    try:
        addresses = {"address": f"127.0.0.1:{server.port}", "http": f"127.0.0.1:{server.http_port}"}
        by_title = {one.title: one.text for one in snippets_of(catalog.spec, service, NOON_MS, **addresses)}
        assert ["Command line", "Python", "gRPC", "REST", "History"] == list(by_title)

        def paste(program: list[str], title: str) -> str:
            done = subprocess.run(
                [*program, by_title[title]], cwd=tmp_path, env=pasted, check=False, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{by_title[title]}\n{done.stdout}{done.stderr}"
            return done.stdout

        assert "amount_to_mean" in paste(["bash", "-c"], "Command line")
        assert "'count_1h': 0" in paste([sys.executable, "-c"], "Python")
        assert json.loads(paste(["bash", "-c"], "REST"))["features"]["count_1h"] == {
            "values": [0],
            "statuses": ["NOT_FOUND"],
        }
        asked = re.fullmatch(r"grpcurl -plaintext -d '(.*)' \\\n    (\S+) (\S+)/(\S+)", by_title["gRPC"])
        assert asked is not None
        request = json_format.Parse(asked[1], pb.LookupRequest())
        with grpc.insecure_channel(asked[2]) as channel:
            ask = channel.unary_unary(
                f"/{asked[3]}/{asked[4]}",
                request_serializer=pb.LookupRequest.SerializeToString,
                response_deserializer=pb.LookupResponse.FromString,
            )
            assert 1 == len(ask(request, timeout=10).as_of_ms)
        paste(["bash", "-ec"], "History")
        assert "amount_to_mean" in pq.read_table(tmp_path / "train.parquet").column_names
    finally:
        server.stop(drain_seconds=0.5)
        store.close()
