"""`python -m dataflows.log_to_files`: the stream that keeps the event log."""

from __future__ import annotations

import os
import sys

from dataflows.log_to_files.flow import main

if __name__ == "__main__":
    sys.exit(main(program=os.environ.get("FEATURESTORE_PROGRAM", "python -m dataflows.log_to_files")))
