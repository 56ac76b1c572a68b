"""A platform's worth of views: N of them over one stream and four join keys, 25 features each.

    view_0 by card, view_1 by merchant, view_2 by terminal, view_3 by card and merchant, view_4 by card ...

Each team takes its own pick of windows and columns from what everybody takes them from, so that some features are asked
for by several, most by one, and what they are made of mostly by all.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.machine import ROOT, environment
from benchmarks.parts import AppliedRepo
from featurestore.definitions.registry import read_registry

FEATURES = 25
KEYS = (("card",), ("merchant",), ("terminal",), ("card", "merchant"))

_WINDOWS = ("5m", "10m", "1h", "6h", "1d", "7d", "30d")
_CONDITIONS = ("is_declined", "is_refund", "not is_card_present", "amount > 10000")
_FUNCTIONS = ("sum", "mean", "max", "stddev_pop")
_SEED = 20_261_201


def many_views(directory: Path, count: int, *, are_apart: bool) -> AppliedRepo:
    """The repo, written and applied.

    Args:
        directory: for repo and registry.
        count: of the views.
        are_apart: every view is stored by itself.
    """
    directory.mkdir(parents=True)
    for name in ("entities.py", "sources.py", "feature_store.yaml"):
        shutil.copy(ROOT / "feature_repo" / name, directory)
    (directory / "views.py").write_text(_module(count, are_apart=are_apart))
    command = [sys.executable, "-m", "featurestore", "apply", "--repo", str(directory)]
    subprocess.run(command, env=environment(), check=True, capture_output=True)
    registry = directory / "data" / "registry.db"
    return AppliedRepo(registry, read_registry(registry))


def _module(count: int, *, are_apart: bool) -> str:
    """The views as a module of the repo."""
    draw = random.Random(_SEED)
    lines = [
        "from entities import card, merchant, terminal",
        "from sources import transactions",
        "from featurestore.features import aggregate, count, stream_view",
    ]
    for number in range(count):
        picked: dict[str, str] = {}
        while len(picked) < FEATURES:
            name, code = _feature(draw)
            picked.setdefault(name, code)
        keys = ", ".join(KEYS[number % len(KEYS)])
        storage = ', storage="own"' if are_apart else ""
        features = ", ".join(picked.values())
        lines.append(
            f'view_{number} = stream_view(name="view_{number}", entities=[{keys}], source=transactions{storage}, '
            f'prefix="v{number}_", features=[{features}])'
        )
    return "\n".join(lines) + "\n"


def _feature(draw: random.Random) -> tuple[str, str]:
    """Name and code of a feature."""
    window, kind = draw.choice(_WINDOWS), draw.random()
    if kind < 0.35:
        function = draw.choice(_FUNCTIONS)
        return f"{function}_{window}", f'*aggregate("amount", "{function}", over="{window}")'
    if kind < 0.55:
        return f"count_{window}", f'*count(over="{window}")'
    if kind < 0.85:
        at = draw.randrange(len(_CONDITIONS))
        code = f'*count(over="{window}", where="{_CONDITIONS[at]}", name="count_{at}")'
        return f"count_{at}_{window}", code
    if kind < 0.95:
        column = draw.choice(("market", "merchant_category"))
        return f"last_{column}_{window}", f'*aggregate("{column}", "last", over="{window}")'
    return f"declines_{window}", f'*aggregate("is_declined", "mean", over="{window}", name="declines")'
