"""Random well-typed SQL that means the same here and in DuckDB, and rows to try it on.

What differs on purpose (see the package's docstring) is left out, or written so that it is one: operations that DuckDB
refuses for some data stand in TRY(...), integers that stand alone are cast to BIGINT, doubles carry an exponent,
timestamps are those that both know (1971 to 2037) in milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from hypothesis import strategies as st

from featurestore.core.spec import ValueType

COLUMNS = {
    "i": ValueType.INT64,
    "j": ValueType.INT64,
    "f": ValueType.FLOAT64,
    "g": ValueType.FLOAT64,
    "s": ValueType.STRING,
    "w": ValueType.STRING,
    "b": ValueType.BOOL,
    "c": ValueType.BOOL,
    "t": ValueType.TIMESTAMP,
    "u": ValueType.TIMESTAMP,
    "zone": ValueType.STRING,
}

DEPTH = 3

FIRST_MS = 31_536_000_000
LAST_MS = 2_114_380_800_000
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/Sao_Paulo")

_INTEGERS = st.one_of(
    st.integers(-3, 3),
    st.integers(-1_000, 1_000),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([-(2**63), 2**63 - 1, -(2**63) + 1, 2**53 + 1, 5 * 10**18, 45, 50, -55, 2**31]),
)
_DOUBLES = st.one_of(
    st.sampled_from(
        [0.0, -0.0, 0.5, -0.5, 1.5, 2.5, float("nan"), float("inf"), float("-inf"), 1e308, 9.3e18, 2.0**63]
    ),
    st.floats(-100, 100),
    st.floats(),
)
_TEXTS = st.one_of(
    st.sampled_from(
        [
            "",
            "a",
            "ab",
            "A",
            "aab",
            "DE",
            "de",
            "straße",
            "ẞ",
            "ΑΣ",
            "é",
            "e\u0301",
            "日本",
            "🤦🏼",
            "İ",
            "ǅ",
            "a%",
            "a_b",
            "\\",
        ]
    ),
    st.sampled_from(
        [" a ", "\ta\n", "1", "-5", " 12 ", "1.5", "2.5e0", "-0.5", "1e3", "nan", "inf", "true", "NO", "1e19"]
    ),
    st.sampled_from(["2026-01-31", "2026-01-31 10:20:30.5", "2026-01-31T10:20:30+02:00", "2026-02-30"]),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5),
)
_TIMES = st.one_of(
    st.integers(FIRST_MS, LAST_MS),
    # Changes of the clock in Berlin and New York, to the hour and beside it.
    st.sampled_from([1_774_746_000_000, 1_792_890_000_000, 1_773_039_600_000, 1_793_512_800_000]).flatmap(
        lambda time_ms: st.integers(-2, 2).map(lambda hours: time_ms + hours * 3_600_000 - (hours == 1))
    ),
)

VALUES: dict[str, st.SearchStrategy[object]] = {
    "i": _INTEGERS, "j": _INTEGERS, "f": _DOUBLES, "g": _DOUBLES, "s": _TEXTS, "w": _TEXTS,
    "b": st.booleans(), "c": st.booleans(), "t": _TIMES, "u": _TIMES, "zone": st.sampled_from(ZONES),
}  # fmt: skip


@cache
def rows() -> st.SearchStrategy[list[dict[str, object]]]:
    """Rows of every column, each null one time in five."""
    return st.lists(
        st.fixed_dictionaries({name: st.none() | value | value | value | value for name, value in VALUES.items()}),
        min_size=1,
        max_size=12,
    )


Sql = st.SearchStrategy[str]


def _below(depth: int, *makers: Callable[[int], Sql]) -> list[Sql]:
    """Pieces one level further in, made when first drawn: the kinds refer to each other."""

    def below(make: Callable[[int], Sql]) -> Sql:
        return st.deferred(lambda: make(depth - 1))

    return [below(make) for make in makers]


def _filled(template: str, *parts: Sql) -> Sql:
    """The template with each {} replaced by a piece, in brackets."""
    return st.tuples(*parts).map(lambda pieces: template.format(*[f"({piece})" for piece in pieces]))


def _text_literal(texts: st.SearchStrategy[str]) -> Sql:
    return texts.map(lambda text: "'" + text.replace("'", "''") + "'")


# Without the smallest: DuckDB widens its negation to 128 bits when it is constant. Rows do hold it.
_INTEGER_LITERAL = _INTEGERS.filter(lambda value: value > -(2**63)).map(lambda value: f"CAST({value} AS BIGINT)")
_DOUBLE_LITERAL = (
    st.floats(allow_nan=False, allow_infinity=False)
    .filter(bool)
    .map(lambda value: repr(value) if "e" in repr(value) else f"{value!r}e0")
)
_TEXT_LITERAL = _text_literal(_TEXTS)
_SMALL = st.integers(-6, 6).map(str)
_ZONE = _text_literal(st.sampled_from(ZONES)) | st.just("zone")
_TIME_UNIT = st.sampled_from(["second", "minute", "hour", "day", "week", "month", "quarter", "year"])
_TIME_PART = st.sampled_from(
    ["year", "quarter", "month", "week", "day", "hour", "minute", "second", "dow", "isodow", "doy"]
)
_PATTERN = _text_literal(st.text(st.sampled_from("a%_bé"), max_size=4) | _TEXTS.filter(lambda text: "\\" not in text))


@cache
def integers(depth: int = DEPTH) -> Sql:
    """Expressions of type BIGINT."""
    leaf = st.sampled_from(["i", "j"]) | _INTEGER_LITERAL
    if depth == 0:
        return leaf
    x, f, s, t = _below(depth, integers, doubles, texts, times)
    return st.one_of(
        leaf,
        st.sampled_from("+-*").flatmap(lambda sign: _filled("TRY({} " + sign + " {})", x, x)),
        st.sampled_from(["//", "%"]).flatmap(lambda sign: _filled("TRY({} " + sign + " {})", x, x)),
        _filled("TRY(-{})", x),
        _filled("TRY(ABS({}))", x),
        _filled("CAST(SIGN({}) AS BIGINT)", x | f),
        st.tuples(x, st.integers(-20, 3)).map(lambda pair: f"TRY(ROUND({pair[0]}, {pair[1]}))"),
        _filled("LENGTH({})", s),
        _filled("TRY_CAST({} AS BIGINT)", f | s | _conditions(depth)),
        st.tuples(_TIME_PART, t | _locals(depth)).map(lambda pair: f"EXTRACT({pair[0]} FROM {pair[1]})"),
        _filled("EPOCH_MS({})", t),
        _choices(x, depth),
    )


@cache
def doubles(depth: int = DEPTH) -> Sql:
    """Expressions of type DOUBLE, exact ones: the same bits from any library."""
    leaf = st.sampled_from(["f", "g"]) | _DOUBLE_LITERAL
    if depth == 0:
        return leaf
    x, i, s, t = _below(depth, doubles, integers, texts, times)
    return st.one_of(
        leaf,
        st.sampled_from("+-*").flatmap(lambda sign: _filled("{} " + sign + " {}", x, x | i)),
        _filled("TRY({} / {})", x | i, x | i),
        _filled("TRY({} % {})", x, x),
        _filled("-{}", x),
        st.sampled_from(["ABS", "FLOOR", "CEIL", "ROUND"]).flatmap(lambda name: _filled(name + "({})", x)),
        st.tuples(x, st.integers(-4, 4)).map(lambda pair: f"ROUND({pair[0]}, {pair[1]})"),
        _filled("TRY(SQRT({}))", x),
        _filled("TRY_CAST({} AS DOUBLE)", i | s | _conditions(depth)),
        _filled("EXTRACT(epoch FROM {})", t),
        _choices(x, depth),
    )


@cache
def rounded_doubles() -> Sql:
    """Functions whose last bit depends on the library, at the root only: nothing may branch on that bit."""
    x = doubles(DEPTH - 1)
    base = _filled("ABS({})", x)
    exponent = st.sampled_from(["-1e0", "0.5e0", "2e0", "3"])
    return st.one_of(
        st.sampled_from(["LN", "LOG10", "EXP"]).flatmap(lambda name: _filled(f"TRY({name}({{}}))", x)),
        _filled("TRY(POWER({}, {}))", base, exponent),
    )


@cache
def texts(depth: int = DEPTH) -> Sql:
    """Expressions of type VARCHAR."""
    leaf = st.sampled_from(["s", "w"]) | _TEXT_LITERAL
    if depth == 0:
        return leaf
    x, i, f, t = _below(depth, texts, integers, doubles, times)
    return st.one_of(
        leaf,
        st.sampled_from(["LOWER", "UPPER", "TRIM", "LTRIM", "RTRIM"]).flatmap(lambda name: _filled(name + "({})", x)),
        _filled("TRIM({}, {})", x, x),
        st.tuples(x, _SMALL, _SMALL).map(lambda parts: "SUBSTRING({}, {}, {})".format(*parts)),
        st.tuples(x, _SMALL).map(lambda parts: "SUBSTRING({}, {})".format(*parts)),
        st.sampled_from(["LEFT", "RIGHT"]).flatmap(
            lambda name: st.tuples(x, _SMALL).map(lambda p: f"{name}({p[0]}, {p[1]})")
        ),
        _filled("REPLACE({}, {}, {})", x, x, x),
        _filled("{} || {}", x, x),
        _filled("CONCAT({}, {}, {})", x, x, x),
        _filled("CAST({} AS VARCHAR)", i | f | t | _conditions(depth)),
        _choices(x, depth),
    )


@cache
def times(depth: int = DEPTH) -> Sql:
    """Expressions of type TIMESTAMP."""
    leaf = st.sampled_from(["t", "u"])
    if depth == 0:
        return leaf
    x = st.deferred(lambda: times(depth - 1))
    span = st.sampled_from(["1 HOUR", "90 MINUTE", "2 DAY", "1 WEEK", "5 SECOND"])
    return st.one_of(
        leaf,
        st.tuples(_TIME_UNIT, x).map(lambda pair: f"DATE_TRUNC('{pair[0]}', {pair[1]})"),
        st.tuples(x, st.sampled_from("+-"), span).map(lambda parts: "({} {} INTERVAL {})".format(*parts)),
        st.tuples(_locals(depth), _ZONE).map(lambda pair: f"(({pair[0]}) AT TIME ZONE {pair[1]})"),
        _choices(x, depth),
    )


@cache
def _locals(depth: int) -> Sql:
    shifted = st.tuples(times(depth - 1), _ZONE).map(lambda pair: f"({pair[0]}) AT TIME ZONE {pair[1]}")
    return shifted | st.tuples(_TIME_UNIT, shifted).map(lambda pair: f"DATE_TRUNC('{pair[0]}', {pair[1]})")


@cache
def conditions(depth: int = DEPTH) -> Sql:
    """Expressions of type BOOLEAN."""
    leaf = st.sampled_from(["b", "c", "TRUE", "FALSE"])
    if depth == 0:
        return leaf
    x, i, f, s, t = _below(depth, conditions, integers, doubles, texts, times)
    number = i | f
    state = st.sampled_from(["NULL", "NOT NULL", "TRUE", "NOT TRUE", "FALSE", "NOT FALSE"])
    return st.one_of(
        leaf,
        *(_compared(left, right) for left, right in ((number, number), (s, s), (x, x), (t, t))),
        st.sampled_from(["AND", "OR"]).flatmap(lambda word: _filled("{} " + word + " {}", x, x)),
        _filled("NOT {}", x),
        st.tuples(x, state).map(lambda pair: f"({pair[0]}) IS {pair[1]}"),
        _filled("{} IS NULL", number | s | t),
        *(_listed(value) for value in (i, f, s, t)),
        _filled("{} BETWEEN {} AND {}", number, number, number),
        _filled("{} LIKE {}", s, _PATTERN | s.filter(lambda sql: "\\" not in sql)),
        _filled("{} NOT ILIKE {}", s, _PATTERN),
        _filled(
            "{} LIKE {} ESCAPE 'b'", s, _text_literal(st.text(st.sampled_from("a%_"), max_size=3)) | st.just("'ab%'")
        ),
        st.sampled_from(["STARTS_WITH", "ENDS_WITH", "CONTAINS"]).flatmap(
            lambda name: _filled(name + "({}, {})", s, s)
        ),
        _filled("TRY_CAST({} AS BOOLEAN)", number | s),
        _filled("ISNAN({})", f),
        _choices(x, depth),
    )


@cache
def _conditions(depth: int) -> Sql:
    return st.deferred(lambda: conditions(depth - 1))


def _compared(left: Sql, right: Sql) -> Sql:
    sign = st.sampled_from(["=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM", "IS NOT DISTINCT FROM"])
    return st.tuples(left, sign, right).map(lambda parts: "({}) {} ({})".format(*parts))


def _listed(value: Sql) -> Sql:
    candidates = st.lists(value | st.just("NULL"), min_size=1, max_size=7)
    return st.tuples(value, st.sampled_from(["IN", "NOT IN"]), candidates).map(
        lambda parts: f"({parts[0]}) {parts[1]} ({', '.join(parts[2])})"
    )


def _choices(value: Sql, depth: int) -> Sql:
    condition = _conditions(depth)
    return st.one_of(
        _filled("CASE WHEN {} THEN {} WHEN {} THEN {} ELSE {} END", condition, value, condition, value, value),
        _filled("CASE WHEN {} THEN {} END", condition, value),
        _filled("CASE {} WHEN {} THEN {} ELSE {} END", value, value, value, value),
        _filled("COALESCE({}, NULL, {})", value, value),
        _filled("NULLIF({}, {})", value, value),
        st.sampled_from(["GREATEST", "LEAST"]).flatmap(
            lambda name: _filled(name + "({}, {}, {})", value, value, value)
        ),
    )


ROOTS: dict[ValueType, Callable[[], Sql]] = {
    ValueType.INT64: integers,
    ValueType.FLOAT64: doubles,
    ValueType.STRING: texts,
    ValueType.BOOL: conditions,
    ValueType.TIMESTAMP: times,
}
