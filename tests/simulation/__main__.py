"""`python -m tests.simulation`: see nightly.py."""

from __future__ import annotations

import sys

from tests.simulation.nightly import main

if __name__ == "__main__":
    sys.exit(main())
