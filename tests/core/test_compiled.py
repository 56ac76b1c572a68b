"""Compiled loops: what is cached is what the files say, helpers in other files included."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HELPER = """
from featurestore.core.compiled import borrowing, inlined
@inlined
def added(value):
    return value + {step}
@borrowing
def doubled(value):
    return {step} * value
"""
LOOP = """
from featurestore.core.compiled import INT, INTS, compiled
from helper import added, doubled
@compiled(INT, INTS)
def total(values):
    found = 0
    for value in values:
        found += added(value)
    return found
@compiled(INT, INTS, allocates=False)
def twice(values):
    found = 0
    for value in values:
        found += doubled(value)
    return found
"""
OUTER = """
from featurestore.core.compiled import INT, INTS, compiled, within
from loop import twice
inner = within(twice)
@compiled(INT, INTS, allocates=False)
def halves(values):
    return inner(values[:2]) + inner(values[2:])
"""
CALL = """
import numpy, loop, outer
print(outer.halves(numpy.arange(4)), loop.total(numpy.arange(4)), loop.twice(numpy.arange(4)))
"""


def test_a_cached_loop_notices_a_change_of_a_helper_in_another_file(tmp_path: Path) -> None:
    """A new release must not run what the one before it compiled; nor a loop that has another one within."""
    (tmp_path / "loop.py").write_text(LOOP)
    (tmp_path / "outer.py").write_text(OUTER)
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    for step in (1, 2):
        (tmp_path / "helper.py").write_text(HELPER.format(step=step))
        environment["PYTHONPATH"] = os.pathsep.join((str(tmp_path), *filter(None, sys.path)))
        printed = subprocess.run(
            [sys.executable, "-c", CALL], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout

        assert printed.split() == [str(6 * step), str(6 + 4 * step), str(6 * step)]
    assert len(list((tmp_path / "cache").rglob("*.nbi"))) == 6
