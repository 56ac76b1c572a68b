"""The page docs/publish.md, typed in as it is written, on a real Kafka."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from featurestore.online.embedded import EmbeddedStore
from featurestore.testing.servers import KafkaBroker, kafka_broker
from tests.docs.pages import Reader, clean_environment, type_in

PAGE = Path(__file__).resolve().parents[2] / "docs" / "publish.md"

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


@pytest.fixture
def broker(kafka: KafkaBroker) -> Iterator[KafkaBroker]:
    """A broker of its own, in which no other test has a topic of the page's name; where there is Kafka at all."""
    with kafka_broker() as own:
        yield own


def test_the_page_works_as_written(tmp_path: Path, broker: KafkaBroker) -> None:
    """Two streams, two topics, and what a consumer reads of them."""
    page = PAGE.read_text(encoding="utf-8").replace("127.0.0.1:9092", broker.bootstrap_servers)
    reader = Reader(tmp_path, clean_environment())
    try:
        languages = type_in(page, reader)
    finally:
        reader.leave()
        EmbeddedStore(tmp_path / "data" / "store").stop()

    assert languages == {"bash", "json", "python", "text"}
