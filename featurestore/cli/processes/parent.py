"""What a server process does that another one has started: it ends when its parent does, however that ended."""

from __future__ import annotations

import sys
import threading


def end_with_parent(stopping: threading.Event) -> None:
    """Set the wish to stop once the parent is gone, which holds the other end of the standard input."""

    def wait() -> None:
        sys.stdin.read()
        stopping.set()

    threading.Thread(target=wait, daemon=True, name="parent").start()
