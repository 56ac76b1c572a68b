"""The feature log as Parquet files, and `featurestore serve` that writes them."""

from __future__ import annotations

import signal
from datetime import UTC, datetime
from pathlib import Path

import pytest

from featurestore.definitions.registry import read_registry
from featurestore.offline.parity.feature_log import FeatureLogWriter, erase_logged, find_logged_files
from featurestore.offline.parity.log_directory import LogDirectory
from featurestore.online.generation_catalog import GenerationCatalog
from featurestore.online.redis.store import connect
from featurestore.serving.client.clients import LookupClient
from featurestore.serving.sampling.sample import FeatureLog
from featurestore.testing.clock import ManualClock
from tests.serving.payments import NOW_MS, Payments, RegistryInMemory
from tests.serving.registries import write_registry
from tests.serving.sampling.feature_logs import ENTITIES, Counts, logging_server, one_answer, wait_for
from tests.serving.test_commands import serving


def test_files_are_whole_by_service_and_date_and_say_what_they_hold(
    payments: Payments, registry: RegistryInMemory, clock: ManualClock, tmp_path: Path
) -> None:
    """Rows of two services and two days, read back by service and by time; nothing else lies in the directory."""
    writer = FeatureLogWriter(LogDirectory(str(tmp_path)), "t", roll_seconds=3_600.0)
    with (
        logging_server(payments, registry, clock, writer) as server,
        LookupClient(f"127.0.0.1:{server.port}", timeout_s=30) as client,
    ):
        client.lookup("fraud_detection", ENTITIES)
        client.lookup("merchant_monitoring", {"merchant_id": [7]})
        clock.advance_ms(86_400_000)
        client.lookup("merchant_monitoring", {"merchant_id": [7, 8]})
        assert not list(tmp_path.rglob("*.parquet")), "an hour has not passed"

    files = LogDirectory(str(tmp_path))
    paths = sorted(path.relative_to(tmp_path).parent.as_posix() for path in tmp_path.rglob("*") if path.is_file())
    days = [datetime.fromtimestamp((NOW_MS + day * 86_400_000) / 1_000, UTC).date() for day in range(2)]
    assert [
        f"service=fraud_detection/log_date={days[0]}",
        f"service=merchant_monitoring/log_date={days[0]}",
        f"service=merchant_monitoring/log_date={days[1]}",
    ] == paths
    logged = list(find_logged_files(files, service="merchant_monitoring"))
    assert [1, 2] == [file.read(["merchant_id"]).num_rows for file in logged]
    assert "merchant_monitoring" == logged[0].layout.service
    assert ["merchant_id"] == [key.name for key in logged[0].layout.join_keys]
    later = list(find_logged_files(files, service="merchant_monitoring", since_ms=NOW_MS + 86_400_000))
    assert [[7, 8]] == [file.read(["merchant_id"]).column("merchant_id").to_pylist() for file in later]
    none = [file.read(["merchant_id"], until_ms=NOW_MS).num_rows for file in find_logged_files(files, until_ms=NOW_MS)]
    assert {0} == set(none)
    whole = logged[0].read(logged[0].layout.schema.names)
    assert logged[0].layout.schema.equals(whole.schema)

    forgotten = [erase_logged(files, "merchant_id", 7, NOW_MS + 1), erase_logged(files, "merchant_id", 8, NOW_MS + 1)]
    logged = list(find_logged_files(files, service="merchant_monitoring"))
    assert forgotten == [3, 0]
    assert [[], [7, 8]] == [file.read(["merchant_id"]).column("merchant_id").to_pylist() for file in logged]


def test_a_file_that_cannot_be_written_keeps_its_rows_for_the_next_try(
    payments: Payments, registry: RegistryInMemory, clock: ManualClock, tmp_path: Path
) -> None:
    """The directory is gone for a while; no torn file remains, and no row is missing afterwards."""
    answered = one_answer(payments, registry, clock)
    root = tmp_path / "log"
    root.write_text("a file where the directory should be")
    writer = FeatureLogWriter(LogDirectory(str(root)), "t", roll_seconds=0.0)
    counts = Counts()
    log = FeatureLog(writer, clock, share=1.0)
    log.start(counts)
    log.add(answered)
    wait_for(lambda: counts.failures > 0)
    root.unlink()
    log.stop()

    assert {"written": 1} == dict(counts.rows)
    [path] = [path for path in root.rglob("*") if path.is_file()]
    assert [1] == [file.read(["card_id"]).num_rows for file in find_logged_files(LogDirectory(str(root)))]
    assert path.suffix == ".parquet"


def test_serve_logs_by_option_and_writes_all_rows_when_it_is_stopped(redis_url: str, tmp_path: Path) -> None:
    """From the shell: half of two hundred requests, none lost at SIGTERM, and the files are complete."""
    registry_path = tmp_path / "registry.db"
    write_registry(registry_path)
    options = ["--registry", str(registry_path), "--project", "payments", "--store-url", redis_url]
    _register(registry_path, redis_url)
    with serving(*options, "--log-features", str(tmp_path / "served"), "--log-share", "0.5") as (line, process):
        address = line.split(" on ")[1].strip()
        with LookupClient(address, timeout_s=30) as client:
            for merchant in range(200):
                client.lookup("merchant_monitoring", {"merchant_id": merchant})
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0

    merchants = [
        value
        for file in find_logged_files(LogDirectory(str(tmp_path / "served")))
        for value in file.read(["merchant_id"]).column("merchant_id").to_pylist()
    ]
    assert 100 == pytest.approx(len(merchants), abs=2)
    assert len(set(merchants)) == len(merchants)
    assert all(path.suffix == ".parquet" for path in (tmp_path / "served").rglob("*") if path.is_file())


def _register(registry_path: Path, redis_url: str) -> None:
    """Let the view be served, without an event."""
    store = connect(redis_url)
    GenerationCatalog(store, "payments").register(read_registry(str(registry_path), project="payments").views[0])
    store.close()
