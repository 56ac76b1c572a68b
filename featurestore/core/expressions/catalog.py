"""Every operation by its name. A new one is an entry in the OVERLOADS of its file, and its SQL spelling in `sql.py`."""

from __future__ import annotations

from featurestore.core.expressions.arithmetic import OVERLOADS as ARITHMETIC
from featurestore.core.expressions.calendar import OVERLOADS as CALENDAR
from featurestore.core.expressions.casts import OVERLOADS as CASTS
from featurestore.core.expressions.comparison import OVERLOADS as COMPARISON
from featurestore.core.expressions.distance import OVERLOADS as DISTANCE
from featurestore.core.expressions.logic import OVERLOADS as LOGIC
from featurestore.core.expressions.overload import Overloads
from featurestore.core.expressions.patterns import OVERLOADS as PATTERNS
from featurestore.core.expressions.text import OVERLOADS as TEXT
from featurestore.core.expressions.zones import OVERLOADS as ZONES

CATALOG: Overloads = {
    **LOGIC,
    **COMPARISON,
    **ARITHMETIC,
    **TEXT,
    **PATTERNS,
    **CASTS,
    **CALENDAR,
    **ZONES,
    **DISTANCE,
}
"""Names are SQL's, in capitals; CAST, EXTRACT and DATE_TRUNC carry their target or unit behind a space."""
