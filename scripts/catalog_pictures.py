"""Take the pictures of docs/catalog.md.

    python -m scripts.catalog_pictures http://127.0.0.1:8765

A catalog of the example repo runs there, with stream and server behind it; tests/catalog/browser.py says what else is
needed.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tests.catalog.browser import browser_in

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"

COLORS = 32

PICTURES = (
    ("catalog-search", 1080, 520, "/?q=amount+card"),
    ("catalog-view", 1080, 640, "/view/card_activity"),
    ("catalog-lineage", 1180, 420, "/lineage?of=transactions.is_declined"),
)
"""Name, width and height in pixels, page."""


def take(address: str) -> None:
    """All of them."""
    with tempfile.TemporaryDirectory() as directory, browser_in(Path(directory) / "profile") as browser:
        for name, width, height, page in PICTURES:
            browser.resize(width, height)
            browser.open(address + page)
            picture = Image.open(io.BytesIO(browser.picture())).convert("RGB")
            # A page has few colors, and a repo keeps every byte for ever.
            picture.quantize(COLORS).save(IMAGES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    take(sys.argv[1])
