"""Find what is registered: by words that are said of it, and by whose it is, whom it is about and where it is from.

Thousands of features share a few combinations of team, entity and source. So filters are decided for each combination,
and only words are looked for in each entry.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from featurestore.catalog.model import FACETS, Entry
from featurestore.definitions.governance.catalog import FEATURE, SERVICE, SOURCE, VIEW

_RANK = {VIEW: 0, SERVICE: 1, SOURCE: 2, FEATURE: 3}
_KIND = FACETS.index("kind")


@dataclass(frozen=True, slots=True)
class Found:
    """An answer to a search.

    Attributes:
        entries: best first.
        counts: facet -> value -> how many there would be with it, the other filters kept; most frequent first.
    """

    entries: Sequence[Entry]
    counts: Mapping[str, Sequence[tuple[str, int]]]


def find(entries: Sequence[Entry], text: str, filters: Mapping[str, str]) -> Found:
    """Entries of which all words are said, and which pass all filters.

    Without words and without a kind, features are left out: their views stand for them.

    Args:
        entries: of a catalog.
        text: words, in any case.
        filters: facet -> value; others than FACETS are passed over.
    """
    words = text.casefold().split()
    wanted = [(index, filters[facet]) for index, facet in enumerate(FACETS) if facet in filters]
    said = entries
    for word in words:
        said = [entry for entry in said if word in entry.said]
    hides_features = not words and "kind" not in filters
    counters = [Counter[str]() for _ in FACETS]
    passing = set[int]()
    marks_of = {entry.group: entry.marks for entry in said}
    for group, count in Counter(map(attrgetter("group"), said)).items():
        marks = marks_of[group]
        missed = [index for index, value in wanted if value not in marks[index]]
        is_hidden = hides_features and marks[_KIND] == (FEATURE,)
        if not missed and not is_hidden:
            passing.add(group)
        if len(missed) > 1:
            continue
        # What one filter alone keeps out is what another value of that filter would show.
        for index in missed or range(len(FACETS)):
            if index == _KIND or not is_hidden:
                counters[index].update(dict.fromkeys(marks[index], count))
    found = [entry for entry in said if entry.group in passing]
    return Found(_ranked(found, words), dict(zip(FACETS, map(_ordered, FACETS, counters), strict=True)))


def _ranked(found: Sequence[Entry], words: Sequence[str]) -> list[Entry]:
    """Those that are called so come first, then those whose names have more of the words, views before features."""
    if not words:
        return sorted(found, key=lambda entry: _RANK[entry.item.kind])
    called = "_".join(words)
    named = [0] * len(found)
    for word in (*words, called):
        named = [count - (word in entry.name) for count, entry in zip(named, found, strict=True)]
    ranks = [
        (count - (entry.name == called or entry.name.endswith(f":{called}")), _RANK[entry.item.kind])
        for count, entry in zip(named, found, strict=True)
    ]
    return [found[at] for at in sorted(range(len(found)), key=ranks.__getitem__)]


def _ordered(facet: str, counter: Counter[str]) -> list[tuple[str, int]]:
    """Most frequent first; tiers in their order, and what nobody says last."""
    return sorted(counter.items(), key=lambda one: (one[0] == "", one[0] if facet == "tier" else -one[1], one[0]))
