"""Every operation by its name. A new one is an entry in the OVERLOADS of its file, and its SQL spelling in `sql.py`."""

from __future__ import annotations

from featurestore.core.expressions.functions.arithmetic import OVERLOADS as ARITHMETIC
from featurestore.core.expressions.functions.calendar import OVERLOADS as CALENDAR
from featurestore.core.expressions.functions.casts import OVERLOADS as CASTS
from featurestore.core.expressions.functions.comparison import OVERLOADS as COMPARISON
from featurestore.core.expressions.functions.distance import OVERLOADS as DISTANCE
from featurestore.core.expressions.functions.logic import OVERLOADS as LOGIC
from featurestore.core.expressions.functions.patterns import OVERLOADS as PATTERNS
from featurestore.core.expressions.functions.text import OVERLOADS as TEXT
from featurestore.core.expressions.functions.zones import OVERLOADS as ZONES
from featurestore.core.expressions.overload import Overloads

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
