"""Write the pages of reference, docs/authoring.md and docs/commands.md, from the code that they are about.

python -m scripts.reference_pages              writes the pages; a test holds them against the code

What is written by hand is in scripts/reference/*.template.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from scripts.reference import authoring, commands

DOCS = Path(__file__).resolve().parents[1] / "docs"

PAGES: Mapping[Path, Callable[[], str]] = {
    DOCS / "authoring.md": authoring.page,
    DOCS / "commands.md": commands.page,
}
"""Page -> what writes it."""

if __name__ == "__main__":
    for path, page in PAGES.items():
        path.write_text(page(), encoding="utf-8")
