"""Pages lead somewhere: links, headings, and the files that they name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.test_glossary import anchors_of

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")])

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
NAMED_FILE = re.compile(r"`((?:featurestore|dataflows|feature_repo|tests|benchmarks|scripts|docs|proto|ops)/[\w./-]+)`")
NOT_IN_GIT = ("feature_repo/data",)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_and_named_file_exists(page: Path) -> None:
    """Also the heading that a link names; a file that moves takes its mentions along."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    broken = [link for link in LINK.findall(text) if "://" not in link and not _leads_somewhere(page, link)]
    missing = [
        name for name in NAMED_FILE.findall(text) if not name.startswith(NOT_IN_GIT) and not (ROOT / name).exists()
    ]

    assert broken == []
    assert missing == []


def test_every_page_is_reached_from_the_first_pages() -> None:
    """Nobody finds a page that no other page names."""
    reached, open_pages = set(), [ROOT / "README.md", ROOT / "docs" / "index.md"]
    while open_pages:
        page = open_pages.pop()
        if page in reached:
            continue
        reached.add(page)
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            found = (page.parent / link.partition("#")[0]).resolve()
            if found.suffix == ".md" and found.is_file():
                open_pages.append(found)
            elif found.is_dir():
                open_pages += found.glob("*.md")

    assert [str(page.relative_to(ROOT)) for page in PAGES if page not in reached] == []


def _leads_somewhere(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    found = (page.parent / path).resolve() if path else page
    return found.exists() and (not anchor or anchor in anchors_of(found))
