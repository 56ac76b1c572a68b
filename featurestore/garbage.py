"""What lives as long as the process is not looked at by the garbage collector again and again.

Definitions, plans and compiled loops are some hundred thousand objects. A full collection walks them all, and payments
wait: 70 to 350 ms where there are sixty views.
"""

from __future__ import annotations

import gc


def spare_what_lives() -> None:
    """Let the collector pass over everything that is alive now; to be called once all is made that stays."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
