"""The page docs/glossary.md: every word once, in order, with a link to a place that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "glossary.md").read_text(encoding="utf-8")
ENTRIES = dict(re.findall(r"^\* \*\*([^*]+)\*\*: (.+?)(?=^\* |\Z)", PAGE, re.MULTILINE | re.DOTALL))
LINK = re.compile(r"\[[^\]]+\]\(([^)]+)\)")

SENTENCES_MAX = 2


def anchors_of(page: Path) -> set[str]:
    """The names under which a Markdown page's headings can be linked to, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def is_there(link: str) -> bool:
    """Whether a relative link leads to a file, and to a heading of it if it names one."""
    path, _, anchor = link.partition("#")
    page = (DOCS / path).resolve() if path else DOCS / "glossary.md"
    return page.is_file() and (not anchor or anchor in anchors_of(page))


def test_the_words_are_in_alphabetical_order() -> None:
    """Each once, whatever its letters' case; no list item of the page is anything but a word."""
    words = re.findall(r"^\* \*\*([^*]+)\*\*:", PAGE, re.MULTILINE)

    assert sorted(set(words), key=str.casefold) == words
    assert len(words) == len(re.findall(r"^\* ", PAGE, re.MULTILINE)) == len(ENTRIES)


@pytest.mark.parametrize("word", ENTRIES)
def test_a_word_is_explained_in_a_few_sentences_with_a_link(word: str) -> None:
    """It ends with a link to the page that says more, and every link of it leads somewhere."""
    text = " ".join(ENTRIES[word].split())
    links = LINK.findall(text)
    meaning = LINK.sub("", text).strip()

    assert text.endswith(")")
    assert [link for link in links if not is_there(link)] == []
    assert meaning.endswith(".")
    assert len(re.findall(r"\.(?= |$)", meaning)) <= SENTENCES_MAX


def test_the_words_that_newcomers_ask_for_are_explained() -> None:
    """The list that the page was asked for."""
    asked = (
        "as_of, body, bootstrap, checkpoint, dead letter, entity key, epoch, event log, event time, feature service, "
        "feature view, freshness, generation, head (of a window), head (of an entity key), hop, lane, lift, lookback, "
        "lower, merge, parity, part, plain view, point-in-time join, retention, tail, tile, window"
    )

    assert [word for word in asked.split(", ") if word not in ENTRIES] == []


def test_a_link_to_nowhere_would_be_found() -> None:
    """Neither a missing page nor a missing heading passes."""
    assert is_there("tiles.md#the-edges-of-a-window")
    assert not is_there("tiles.md#the-edges-of-a-door")
    assert not is_there("no-such-page.md")
