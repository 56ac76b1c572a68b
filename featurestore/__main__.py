"""`python -m featurestore`: the same as the console script `featurestore`."""

from __future__ import annotations

import sys

from featurestore.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
