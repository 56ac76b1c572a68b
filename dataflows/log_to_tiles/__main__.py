"""`python -m dataflows.log_to_tiles`: the stream that keeps features fresh."""

from __future__ import annotations

import os
import sys

from dataflows.log_to_tiles.flow import main

if __name__ == "__main__":
    sys.exit(main(program=os.environ.get("FEATURESTORE_PROGRAM", "python -m dataflows.log_to_tiles")))
