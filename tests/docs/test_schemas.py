"""The page docs/schemas.md, typed in as it is written, on a real Kafka and a real schema registry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from featurestore.online.embedded import EmbeddedStore
from featurestore.testing.servers import KafkaBroker, SchemaRegistry, kafka_broker
from tests.docs.pages import Reader, clean_environment, type_in

PAGE = Path(__file__).resolve().parents[2] / "docs" / "schemas.md"

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


@pytest.fixture
def broker(kafka: KafkaBroker) -> Iterator[KafkaBroker]:
    """A broker of its own, in which no other test has a topic of the page's name; where there is Kafka at all."""
    with kafka_broker() as own:
        yield own


def test_the_page_works_as_written(
    tmp_path: Path, broker: KafkaBroker, registry_of_schemas: SchemaRegistry, port: int
) -> None:
    """Every command succeeds, and what two schemas say of one card is in one answer."""
    page = PAGE.read_text(encoding="utf-8").replace("6566", str(port))
    page = page.replace("127.0.0.1:9092", broker.bootstrap_servers)
    page = page.replace("http://127.0.0.1:8081", registry_of_schemas.url)
    page = page.replace(
        "featurestore stream\n", f"featurestore stream --bootstrap-servers {broker.bootstrap_servers}\n"
    )
    reader = Reader(tmp_path, clean_environment())
    try:
        languages = type_in(page, reader)
    finally:
        reader.leave()
        EmbeddedStore(tmp_path / "shop" / "data" / "store").stop()

    assert languages == {"bash", "python", "text"}
