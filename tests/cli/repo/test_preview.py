"""A preview: real records of an embedded log and of Kafka, and values that a loop over them counts as well."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from featurestore.cli.main import main
from featurestore.cli.repo.preview import shape_of, sparkline
from featurestore.testing.servers import KafkaBroker
from tests.dataflows.payments import CONFIG, REPO, iso

NOW_MS = 1_790_000_000_000
MINUTE_MS = 60_000


def repo_of(directory: Path, topic: str = "payments") -> Path:
    """A repo that nobody has applied."""
    directory.mkdir()
    (directory / "feature_store.yaml").write_text(CONFIG)
    definitions = REPO % {"card_window": "1d"}
    (directory / "definitions.py").write_text(definitions.replace('topic="payments"', f'topic="{topic}"'))
    return directory


def payments(count: int) -> list[bytes]:
    """A payment a minute of two cards in turn, amounts 0, 1, 2 ...; the last one cannot be read."""
    records = [
        {
            "payment_id": f"p{number}",
            "paid_at": iso(NOW_MS + number * MINUTE_MS),
            "card_id": f"c-{number % 2}",
            "merchant_id": 7,
            "amount": number,
            "is_declined": False,
        }
        for number in range(count - 1)
    ]
    return [*(json.dumps(record).encode() for record in records), b"no JSON"]


def previewed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """Features by name, and what is said of the records under ""."""
    assert main(["preview", "cards", "--format", "json", *arguments]) == 0
    told = json.loads(capsys.readouterr().out)
    return {"": told, **{one["feature"]: one for one in told["features"]}}


def test_the_values_are_those_right_after_each_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the newest records alone, and nothing is applied."""
    repo = repo_of(tmp_path / "repo")
    (tmp_path / "log" / "payments").mkdir(parents=True)
    (tmp_path / "log" / "payments" / "0.jsonl").write_bytes(b"".join(line + b"\n" for line in payments(31)))
    found = previewed(capsys, "--repo", str(repo), "--log-dir", str(tmp_path / "log"), "--last", "21")

    amounts = list(range(10, 30))  # the window's old end is floored to its hop: what happened 10 minutes ago is in it
    counted = [sum(one % 2 == mine % 2 and mine - 10 <= one <= mine for one in amounts) for mine in amounts]
    lasting = [sum(one % 2 == mine % 2 and one <= mine for one in amounts) for mine in amounts]
    said = found[""]
    assert (said["records"], said["refused"], said["span_ms"]) == (21, 1, 19 * MINUTE_MS)
    assert found["count_10m"]["largest"] == max(counted)
    assert found["count_10m"]["middle"] == sorted(counted)[9]
    assert found["count_lifetime"]["largest"] == max(lasting)
    assert found["amount_last_1d"]["largest"] == 29
    assert sum(found["count_10m"]["histogram"]) == 20
    assert not (repo / "data").exists()

    assert main(["preview", "cards", "--repo", str(repo), "--log-dir", str(tmp_path / "log")]) == 0
    printed = capsys.readouterr().out
    assert "1 could not be decoded" in printed
    assert "windows longer than 29 minutes hold less here than they will" in printed
    assert all(len(line) <= 120 for line in printed.splitlines())
    assert main(["preview", "card", "--repo", str(repo), "--log-dir", str(tmp_path / "log")]) == 1
    assert 'did you mean "cards"' in capsys.readouterr().err


@pytest.mark.kafka
def test_a_topic_of_kafka_is_looked_at_and_not_moved(
    kafka: KafkaBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As many of each partition."""
    topic = f"preview-{uuid.uuid4().hex[:8]}"
    kafka.create_topic(topic, partitions=2)
    kafka.append(topic, [payments(31), payments(31)])
    repo = repo_of(tmp_path / "repo", topic)
    servers = ["--bootstrap-servers", kafka.bootstrap_servers]
    for _ in range(2):
        found = previewed(capsys, "--repo", str(repo), *servers, "--last", "20")
        assert (found[""]["records"], found[""]["refused"]) == (20, 2)
        assert found["amount_last_1d"]["largest"] == 29
    forget = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    for future in forget.delete_records([TopicPartition(topic, 0, 25)]).values():
        future.result(timeout=30)
    # What Kafka has forgotten is not missed.
    assert previewed(capsys, "--repo", str(repo), *servers, "--last", "40")[""]["records"] == 6 + 20


def test_shapes_of_all_kinds() -> None:
    """Texts by their frequency, lists by their length, and what is skewed by ratios."""
    texts = shape_of("market", pa.chunked_array([["DE", "DE", None, "FR"]]))
    assert (texts.null_share, texts.top) == (0.25, (("DE", 2 / 3), ("FR", 1 / 3)))
    assert shape_of("last", pa.chunked_array([[[1, 2], None, []]])).largest == 2
    assert shape_of("none", pa.chunked_array([[None]], pa.float64())).histogram == ()
    skewed = shape_of("amount", pa.chunked_array([[1.0] * 50 + [10.0] * 30 + [1e6] * 20]))
    assert (skewed.histogram[0], skewed.histogram[-1]) == (50, 20)
    assert sum(one > 0 for one in skewed.histogram) == 3
    assert sparkline((8, 0, 1)) == "█ ▁"
