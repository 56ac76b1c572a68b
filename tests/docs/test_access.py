"""The page docs/access.md, typed in: a token with a role is answered, and others are told what is missing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from featurestore.online.embedded import EmbeddedStore
from featurestore.online.probe import free_port
from tests.docs.pages import Reader, type_in

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "access.md"


@pytest.mark.slow
def test_the_page_works_as_written(tmp_path: Path) -> None:
    """A server that keeps permissions, and three who ask."""
    port = str(free_port())
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FEATURESTORE_")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["PYTHONPATH"] = str(ROOT)
    reader = Reader(tmp_path, environment)
    page = PAGE.read_text(encoding="utf-8")
    page = page.replace("featurestore serve", f"featurestore serve --port {port}")
    page = page.replace("card_id=c-17", f"card_id=c-17 --address 127.0.0.1:{port}")
    try:
        languages = type_in(page, reader)
    finally:
        reader.leave()
        EmbeddedStore(tmp_path / "data" / "store").stop()

    assert languages == {"bash", "python", "text"}
