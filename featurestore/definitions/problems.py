"""Problems of a feature repo: collected, never raised one by one, so that an author sees all of them at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from featurestore.errors.near_names import quoted as quoted
from featurestore.errors.near_names import suggest as suggest

_REMEDY_MARK = "\t"
"""Between fact and remedy of a mistake."""


MISTAKE_TAG = "authoring_mistake"
"""Tag of a view or Field: what `authoring` was given and cannot write as Feast objects. It is not raised, since that
would hide every other mistake of the repo and where this one is; the plan reports it in its place."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the repo a problem is.

    Attributes:
        kind: "feature view", "feature service", "entity" or "source".
        name: the object's name.
        feature: the feature within it, or "".
    """

    kind: str
    name: str
    feature: str = ""

    def of(self, feature: str) -> Place:
        """The same object, narrowed to one feature."""
        return Place(self.kind, self.name, feature)

    def __str__(self) -> str:
        """Such as: feature view "card_activity", feature "amount_sum_1h"."""
        feature = f', feature "{self.feature}"' if self.feature else ""
        return f'{self.kind} "{self.name}"{feature}'


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and what to write instead.

    Attributes:
        place: where.
        fact: what is wrong, lowercase, no full stop.
        remedy: what to do about it, imperative, no full stop.
    """

    place: Place
    fact: str
    remedy: str

    def __str__(self) -> str:
        """Place, fact and remedy on one line."""
        return f"{self.place}: {self.fact}; {self.remedy}"


@dataclass(slots=True)
class ProblemList:
    """Problems in the order in which they are found."""

    found: list[Problem] = field(default_factory=list)

    def add(self, place: Place, fact: str, remedy: str) -> None:
        """Note one problem; the same one is noted once."""
        problem = Problem(place, fact, remedy)
        if problem not in self.found:
            self.found.append(problem)

    def add_mistake(self, place: Place, tags: Mapping[str, str]) -> bool:
        """Note what the tags of a view or Field say is wrong with it; answers whether anything is."""
        if MISTAKE_TAG not in tags:
            return False
        for line in tags[MISTAKE_TAG].splitlines():
            fact, _, remedy = line.partition(_REMEDY_MARK)
            self.add(place, fact, remedy)
        return True


def mistake_text(fact: str, remedy: str) -> str:
    """One mistake as a line of a MISTAKE_TAG."""
    return f"{' '.join(fact.split())}{_REMEDY_MARK}{remedy}"
