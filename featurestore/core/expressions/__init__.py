"""SQL over the columns of events: conditions, computed columns and derived features.

    compile_expression("amount/100.0 > 50 AND market IN ('DE', 'FR')", {"amount": INT64, "market": STRING})
        .text       ((amount / 1e2) > 50) AND ...    canonical: one for every spelling, part of definition hashes
        .evaluate   N rows of columns -> N rows

An expression is parsed and type-checked once, and compiled to operations on whole columns. Nothing it does at run time
raises for data, reads a clock or depends on the order of rows, so stream, lookup and history compute the same values.

The language is DuckDB's, one row at a time, over BIGINT, DOUBLE, VARCHAR, BOOLEAN and TIMESTAMP:

    logic         AND OR NOT, IS [NOT] NULL | TRUE | FALSE, three-valued: a condition selects rows where it is true
    comparison    = <> < <= > >=, IS [NOT] DISTINCT FROM, [NOT] IN (...), [NOT] BETWEEN, [NOT] LIKE | ILIKE [ESCAPE]
    arithmetic    + - * / // % ** and ABS SIGN FLOOR CEIL ROUND SQRT LN LOG10 EXP POWER ISNAN
    choice        CASE, IF, COALESCE, IFNULL, NULLIF, GREATEST, LEAST (both skip nulls)
    text          || CONCAT LOWER UPPER TRIM LTRIM RTRIM LENGTH SUBSTRING LEFT RIGHT REPLACE
                  STARTS_WITH ENDS_WITH CONTAINS
    time          EXTRACT | DATE_PART, DATE_TRUNC, EPOCH_MS, EPOCH, AT TIME ZONE, + and - INTERVAL of a fixed length
    conversion    CAST, TRY_CAST, ::
    places        HAVERSINE_KM(lat1, lon1, lat2, lon2), which is not DuckDB's

Types. An integer divided by an integer is a DOUBLE; // truncates and wants integers. An integer becomes a DOUBLE next
to one, in comparisons too, where beyond 2**53 not every integer has a double of its own. Text never becomes a number or
a truth by itself. TIMESTAMP columns are moments; AT TIME ZONE turns one into the local time that EXTRACT and DATE_TRUNC
then see, and a local time back into a moment. Text next to a time is one, in UTC unless it says otherwise.

NaN equals NaN and is greater than every other number. Text is compared by code points. A character is a code point.
Upper and lower case follow Unicode's simple mappings.

Where DuckDB would raise for some row, the answer is null: an integer beyond 64 bits, division by zero, a logarithm or
root outside its domain, a cast that fails, an unknown time zone. (DuckDB says the same in TRY(...) under
`ieee_floating_point_ops = false`; TRY(x) may be written and is x.) DOUBLE overflows to infinities, as in DuckDB.

Different from DuckDB on purpose:

    1.5                 is a DOUBLE, not a DECIMAL; the canonical text writes 1.5e0, a DOUBLE for both
    5                   is a BIGINT, not an INTEGER; and nothing widens to 128 bits, -(-9223372036854775808) is null
    'a' < 5, TRUE = 1   refused: no casts between text, numbers and truths but those that are written
    CAST(... AS ...)    only to the five types; TIMESTAMP means a moment (TIMESTAMPTZ), whole milliseconds
    text to BIGINT      decimal digits, fraction and exponent only: '1_000' and '0x1F' are null
    text to TIMESTAMP   ISO 8601 only, digits beyond the millisecond are cut off
    // of doubles       refused: FLOOR(a / b)
    POWER               null where the root of a negative number would be NaN
    EPOCH_MS(n)         gives a moment, not a local time
    TIMESTAMP - TIMESTAMP   refused: EPOCH_MS(a) - EPOCH_MS(b)
    zones               IANA names as spelled there; from the tzdata package; null outside the years 1 to 9999
    IF, CASE            every branch is computed, which shows nowhere, as nothing raises

Not supported, and refused with a remedy: subqueries, aggregates, window functions, lists, structs, lambdas, regular
expressions, functions that answer differently each time.
"""

from featurestore.core.expressions.compiler import Frame
from featurestore.core.expressions.expression import Expression, compile_expression, quietly

__all__ = ["Expression", "Frame", "compile_expression", "quietly"]
