"""The numbers in a body of version 5 that say how a column is stored; `version5` has the format."""

from __future__ import annotations

EXPLICIT, SAME, PARTLY = 0, 1, 2
"""Kinds of columns: the low two bits of a column's code."""
RELATIVE, IDENTITIES, BY_RUN = 4, 8, 16
"""Flags in the code of an integer column."""
SCALED, ULPS_BY_RUN = 4, 32
"""Flags in the code of a float column, beside BY_RUN."""
PLAIN, PATTERN, DECIMAL, DICTIONARY = 0, 4, 8, 12
"""Forms in the code of a text column."""
IDENTITY = 255
"""Reference to the identity of the column's own field, and not to an earlier column."""
ALONE = 255
"""No count scales the numbers of a float column."""
LIFETIME_RUNG = 255
PACKED_BITS_MAX = 56
"""Wider numbers take eight bytes each: so many bits are always within eight bytes from the one they begin in."""
