"""The page docs/access.md, typed in: a token with a role is answered, and others are told what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from featurestore.online.embedded import EmbeddedStore
from featurestore.online.probe import free_port
from tests.docs.pages import Reader, clean_environment, type_in

PAGE = Path(__file__).resolve().parents[2] / "docs" / "access.md"


@pytest.mark.slow
def test_the_page_works_as_written(tmp_path: Path) -> None:
    """A server that keeps permissions, and three who ask."""
    port = str(free_port())
    reader = Reader(tmp_path, clean_environment())
    page = PAGE.read_text(encoding="utf-8")
    page = page.replace("featurestore serve", f"featurestore serve --port {port}")
    page = page.replace("card_id=c-17", f"card_id=c-17 --address 127.0.0.1:{port}")
    try:
        languages = type_in(page, reader)
    finally:
        reader.leave()
        EmbeddedStore(tmp_path / "data" / "store").stop()

    assert languages == {"bash", "python", "text"}
