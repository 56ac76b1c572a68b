"""Stock Feast on its own Redis store: sixty plain features of three entities, read by its SDK and by `feast serve`.

    python -m benchmarks.peers.feast_peer prepare DIRECTORY REDIS_PORT
    python -m benchmarks.peers.feast_peer serve DIRECTORY PORT
    python -m benchmarks.peers.feast_peer sdk DIRECTORY SECONDS        prints a load report as JSON

Each runs in a process of its own: importing Feast must neither slow down nor change the process that measures.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.load import LoadReport
from benchmarks.machine import environment

VIEWS = {"card": "card_id", "merchant": "merchant_id", "terminal": "terminal_id"}
FEATURES_PER_VIEW = 20
ENTITY = 17
SERVICE = "plain60"

_CONFIG = """
project: plain
provider: local
registry: registry.db
online_store:
  type: redis
  connection_string: "127.0.0.1:{port}"
entity_key_serialization_version: 3
"""


def prepare(directory: Path, redis_port: int) -> None:
    """Apply a repo and write one entity of each view."""
    _run("prepare", directory, str(redis_port))


def measure_sdk(directory: Path, seconds: float) -> LoadReport:
    """Closed loop of `FeatureStore.get_online_features` in one process."""
    return LoadReport(**json.loads(_run("sdk", directory, str(seconds)).splitlines()[-1]))


def expected_values() -> dict[str, float]:
    """What was written, by feature."""
    return {name: index + 0.5 for index, name in enumerate(feature for view in VIEWS for feature in _names(view))}


def _run(command: str, directory: Path, argument: str) -> str:
    words = [sys.executable, "-m", "benchmarks.peers.feast_peer", command, str(directory), argument]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"stock Feast could not {command}\n{done.stdout}{done.stderr}")
    return done.stdout


def _names(view: str) -> list[str]:
    return [f"{view}_plain_{index}" for index in range(FEATURES_PER_VIEW)]


def _write(directory: Path, redis_port: int) -> None:
    import pandas as pd
    from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
    from feast.types import Float64

    directory.mkdir(parents=True)
    (directory / "feature_store.yaml").write_text(_CONFIG.format(port=redis_port))
    now = pd.Timestamp.now(tz="UTC")
    views, entities = [], []
    for view, join_key in VIEWS.items():
        entity = Entity(name=view, join_keys=[join_key], value_type=ValueType.INT64)
        source = FileSource(name=f"{view}_source", path=f"{view}.parquet", timestamp_field="updated_at")
        schema = [Field(name=name, dtype=Float64) for name in _names(view)]
        pd.DataFrame({join_key: [ENTITY], "updated_at": [now], **{name: [0.0] for name in _names(view)}}).to_parquet(
            directory / f"{view}.parquet"
        )
        entities.append(entity)
        views.append(FeatureView(name=f"{view}_plain", entities=[entity], schema=schema, source=source))
    store = FeatureStore(repo_path=str(directory))
    store.apply([*entities, *views, FeatureService(name=SERVICE, features=[*views])])
    values = expected_values()
    for (view, join_key), definition in zip(VIEWS.items(), views, strict=True):
        columns = {name: [values[name]] for name in _names(view)}
        frame = pd.DataFrame({join_key: [ENTITY], "updated_at": [now], **columns})
        store.write_to_online_store(definition.name, frame)


def _load_sdk(directory: Path, seconds: float) -> LoadReport:
    from feast import FeatureStore

    store = FeatureStore(repo_path=str(directory))
    service = store.get_feature_service(SERVICE)
    row = [dict.fromkeys(VIEWS.values(), ENTITY)]
    expected: dict[str, Any] = {key: [ENTITY] for key in VIEWS.values()}
    expected |= {name: [value] for name, value in expected_values().items()}
    latencies_s, mismatches = [], 0
    for _ in range(20):
        store.get_online_features(features=service, entity_rows=row)
    cpu_before_s, end_s = time.process_time(), time.perf_counter() + seconds
    while (begun_s := time.perf_counter()) < end_s:
        response = store.get_online_features(features=service, entity_rows=row)
        latencies_s.append(time.perf_counter() - begun_s)
        if len(latencies_s) == 1:  # to_dict costs more than the call
            mismatches = int(response.to_dict() != expected)
    return LoadReport.of(latencies_s, seconds=seconds, cpu_s=time.process_time() - cpu_before_s, mismatches=mismatches)


def main(arguments: list[str]) -> int:
    """One command of the module's head."""
    command, directory, argument = arguments[0], Path(arguments[1]), arguments[2]
    from featurestore.definitions.fast_import import skip_typeguard

    # Feast's import time is not what is measured, and smoke runs would wait for it.
    with skip_typeguard():
        from feast.cli.cli import cli
    if command == "prepare":
        _write(directory, int(argument))
    elif command == "sdk":
        print(json.dumps(dataclasses.asdict(_load_sdk(directory, float(argument)))))
    else:
        cli(["--chdir", str(directory), "serve", "--host", "127.0.0.1", "--port", argument, "--no-access-log"])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
