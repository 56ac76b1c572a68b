"""`python -m dataflows.log_to_features`: the stream that publishes feature vectors."""

from __future__ import annotations

import os
import sys

from featurestore.cli.extras import require_packages
from featurestore.cli.main import EXIT_ERROR, show_error
from featurestore.errors import InvalidRequest

if __name__ == "__main__":
    try:
        require_packages("publish")
    except InvalidRequest as missing:
        show_error(missing)
        sys.exit(EXIT_ERROR)

    from dataflows.log_to_features.flow import main

    sys.exit(main(program=os.environ.get("FEATURESTORE_PROGRAM", "python -m dataflows.log_to_features")))
