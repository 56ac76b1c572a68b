"""The page docs/shadow.md, typed in: a definition answers beside another one, and the log says how far off it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from featurestore.online.embedded import EmbeddedStore
from featurestore.online.probe import free_port
from tests.docs.pages import Reader, clean_environment, type_in

PAGE = Path(__file__).resolve().parents[2] / "docs" / "shadow.md"
PORT_ON_PAGE = "6566"


@pytest.mark.slow
def test_the_page_works_as_written(tmp_path: Path) -> None:
    """Two applies, a stream, a server that logs, and the comparison."""
    reader = Reader(tmp_path, clean_environment())
    try:
        languages = type_in(PAGE.read_text(encoding="utf-8").replace(PORT_ON_PAGE, str(free_port())), reader)
    finally:
        reader.leave()
        EmbeddedStore(tmp_path / "data" / "store").stop()

    assert languages == {"bash", "python", "text"}
