"""The pages docs/access.md and docs/audit.md, typed in: who may is answered, and what everybody did is in the log."""

from __future__ import annotations

from pathlib import Path

import pytest

from featurestore.online.embedded import EmbeddedStore
from featurestore.online.probe import free_port
from tests.docs.pages import Reader, clean_environment, type_in

DOCS = Path(__file__).resolve().parents[2] / "docs"
END = "```bash\nfeaturestore store stop\n```\n"


@pytest.mark.slow
def test_the_pages_work_as_written(tmp_path: Path) -> None:
    """A server that keeps permissions, three who ask, and somebody who writes history anew."""
    port = str(free_port())
    reader = Reader(tmp_path, clean_environment())
    first, second = ((DOCS / name).read_text(encoding="utf-8") for name in ("access.md", "audit.md"))
    assert END in first
    page = first.replace(END, "") + second
    page = page.replace("featurestore serve", f"featurestore serve --port {port}")
    page = page.replace("card_id=c-17", f"card_id=c-17 --address 127.0.0.1:{port}")
    try:
        languages = type_in(page, reader)
    finally:
        reader.leave()
        EmbeddedStore(tmp_path / "data" / "store").stop()

    assert languages == {"bash", "python", "text"}
