"""What a scenario is given and what it reports.

A scenario measures something beside its peer or floor in one run, and checks that the measured thing was right. Its id
is permanent: prose that quotes a figure names scenario and commit.
"""

from __future__ import annotations

import enum
import hashlib
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


class Size(enum.StrEnum):
    """How much to measure: smoke asserts answers within seconds, full gives figures."""

    SMOKE = "smoke"
    FULL = "full"


class WrongAnswer(AssertionError):
    """What was measured did not answer right; its time means nothing."""


@dataclass(frozen=True, slots=True)
class Line:
    """One measured figure.

    Attributes:
        what: what was measured.
        value: the figure.
        unit: its unit.
        ratio: the figure beside another one of the same run; None for a figure that others are compared with.
        of: what the ratio is to.
    """

    what: str
    value: float
    unit: str
    ratio: float | None = None
    of: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """What a scenario found.

    Attributes:
        scenario: its id.
        question: what it answers.
        lines: the figures.
        answer_hash: digest of the answers, equal on every machine for equal code, size and seed.
        checked: what was compared, in words.
        notes: how it was measured, and what the figures do not say.
    """

    scenario: str
    question: str
    lines: tuple[Line, ...]
    answer_hash: str
    checked: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """What a scenario may use.

    Attributes:
        size: how much to measure.
        directory: scratch space, gone after the run.
        started_s: when the run began, for the progress lines.
    """

    size: Size
    directory: Path
    started_s: float = field(default_factory=time.monotonic)

    def choose(self, *, smoke: int, full: int) -> int:
        """The number that fits the size."""
        return smoke if self.size is Size.SMOKE else full

    def say(self, text: str) -> None:
        """A line of progress."""
        print(f"[{time.monotonic() - self.started_s:6.1f} s] {text}", file=sys.stderr, flush=True)


Scenario = Callable[[Run], Result]


def require(is_right: bool, what: str) -> None:
    """Stop the run when an answer is wrong.

    Raises:
        WrongAnswer: it is.
    """
    if not is_right:
        raise WrongAnswer(what)


def digest(parts: Iterable[bytes | str]) -> str:
    """16 hexadecimal digits over a sequence of answers."""
    hashed = hashlib.blake2b(digest_size=8)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        hashed.update(len(data).to_bytes(8, "little") + data)
    return hashed.hexdigest()


def percentile(values: Iterable[float], percent: float) -> float:
    """The value below which `percent` of them lie, one that was measured (no interpolation)."""
    return float(np.percentile(np.fromiter(values, dtype=np.float64), percent, method="higher"))
