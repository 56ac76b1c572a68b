"""Parameters of aggregations as text: `approx_percentile(0.95)`, `top_k_by(3, amount)`, `ewma_sum(15m)`."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from featurestore.core.windows.durations import duration_words, parse_duration_ms
from featurestore.errors import InvalidRequest

_CALL = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*(?:\((.*)\))?\s*", re.DOTALL)
_BY = re.compile(r"(.*\S)\s+[Bb][Yy]\s+([A-Za-z_][A-Za-z0-9_]*)\s*(?:\(\s*(\d+)\s*\))?\s*", re.DOTALL)
_OVER = re.compile(r"(.*\S)\s+over\s+last_events\s*\(\s*([^()]*?)\s*\)\s*", re.DOTALL | re.IGNORECASE)
_COLUMN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class ParameterKind(enum.Enum):
    """What an argument is."""

    INTEGER = "integer"
    NUMBER = "number"
    DURATION = "duration such as 15m"
    COLUMN = "name of a column"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a function.

    Attributes:
        name: for messages and docs.
        kind: what it is.
        least, most: limits of INTEGER and NUMBER, both included, and of DURATION in ms.
        default: canonical text when it is left out; None requires it.
        repeats: whether the last parameter may be given several times.
    """

    name: str
    kind: ParameterKind
    least: float = 0.0
    most: float = float("inf")
    default: str | None = None
    repeats: bool = False


@dataclass(frozen=True, slots=True)
class Arguments:
    """Parsed arguments of one call.

    Attributes:
        numbers: values of INTEGER, NUMBER and DURATION (ms) parameters by name, each as often as given.
        columns: values of COLUMN parameters by name.
    """

    numbers: Mapping[str, tuple[float, ...]]
    columns: Mapping[str, str]

    def integer(self, name: str) -> int:
        """The only value of an INTEGER or DURATION parameter."""
        return int(self.numbers[name][0])

    @staticmethod
    def parse(function: str, parameters: Sequence[Parameter], given: Sequence[str]) -> Arguments:
        """Check texts against parameters.

        Raises:
            InvalidRequest: too many or too few, of the wrong kind or out of range.
        """
        usage = signature(function, parameters)
        repeats = bool(parameters) and parameters[-1].repeats
        if len(given) > len(parameters) and not repeats:
            raise InvalidRequest(f'function "{function}" takes fewer arguments', hint=f"write {usage}")
        numbers: dict[str, tuple[float, ...]] = {}
        columns: dict[str, str] = {}
        for index, parameter in enumerate(parameters):
            texts = given[index:] if parameter.repeats else given[index : index + 1]
            if not texts:
                if parameter.default is None:
                    raise InvalidRequest(f'function "{function}" needs "{parameter.name}"', hint=f"write {usage}")
                texts = [parameter.default]
            if parameter.kind is ParameterKind.COLUMN:
                columns[parameter.name] = _column(function, parameter, texts[0])
            else:
                numbers[parameter.name] = tuple(_number(function, parameter, text) for text in texts)
        return Arguments(numbers, columns)


def signature(function: str, parameters: Sequence[Parameter]) -> str:
    """How a call is written, such as `top_k_by(n, column)`; parameters with a default in square brackets."""
    if not parameters:
        return function
    written = [
        (f"[{one.name}={one.default}]" if one.default is not None else one.name) + (", ..." if one.repeats else "")
        for one in parameters
    ]
    return f"{function}({', '.join(written)})"


def argument_words(parameters: Sequence[Parameter], given: Sequence[str]) -> list[str]:
    """One text for people a parameter: what was given, or its default.

    Args:
        parameters: of a function.
        given: valid arguments, as written.
    """
    words = []
    for index, parameter in enumerate(parameters):
        texts = given[index:] if parameter.repeats else given[index : index + 1]
        if parameter.kind is ParameterKind.DURATION:
            texts = [duration_words(parse_duration_ms(text)) for text in texts]
        words.append(", ".join(texts) or parameter.default or "")
    return words


def parse_call(text: str) -> tuple[str, tuple[str, ...]]:
    """Function name in small letters and its arguments as written.

    Raises:
        InvalidRequest: not a name with an optional list in brackets.
    """
    match = _CALL.fullmatch(text)
    if match is None:
        raise InvalidRequest(
            f'"{text}" does not name an aggregation function', hint='write "name" or "name(parameter, ...)"'
        )
    listed = match.group(2)
    if listed is None or not listed.strip():
        return match.group(1).lower(), ()
    return match.group(1).lower(), tuple(part.strip() for part in listed.split(","))


def parse_by(text: str) -> tuple[str, str | None, int | None]:
    """The function, secondary key and bound of "<function> by <column>(<bound>)"; None for what is not there.

    >>> parse_by("sum by country"), parse_by("count by country(50)"), parse_by("top_k_by(3, amount)")
    (('sum', 'country', None), ('count', 'country', 50), ('top_k_by(3, amount)', None, None))
    """
    match = _BY.fullmatch(text)
    if match is None:
        return text, None, None
    return match.group(1), match.group(2), None if match.group(3) is None else int(match.group(3))


def parse_over(text: str) -> tuple[str, str]:
    """The function and the number of "<function> over last_events(<number>)"; "" for no such number.

    >>> parse_over("sum over last_events(10)"), parse_over("sum")
    (('sum', '10'), ('sum', ''))
    """
    match = _OVER.fullmatch(text)
    return (text, "") if match is None else (match.group(1), match.group(2) or "none")


def number_text(value: float) -> str:
    """Canonical text of an argument: integers without a point."""
    return str(int(value)) if value == int(value) else repr(value)


def _number(function: str, parameter: Parameter, text: str) -> float:
    """A number or duration within its limits."""
    try:
        value: float | None = _READERS[parameter.kind](text)
    except (ValueError, InvalidRequest):
        value = None
    if value is None or not parameter.least <= value <= parameter.most:
        limits = f" from {number_text(parameter.least)}" + (
            f" to {number_text(parameter.most)}" if parameter.most != float("inf") else ""
        )
        raise InvalidRequest(
            f'"{text}" is not a valid "{parameter.name}" of function "{function}"',
            hint=f"give a {parameter.kind.value}{limits}",
        )
    return value


def _column(function: str, parameter: Parameter, text: str) -> str:
    """A column name."""
    if not _COLUMN.fullmatch(text):
        raise InvalidRequest(
            f'"{text}" is not a valid "{parameter.name}" of function "{function}"', hint="give the name of a column"
        )
    return text


_READERS: Mapping[ParameterKind, Callable[[str], float]] = {
    ParameterKind.INTEGER: int,
    ParameterKind.NUMBER: float,
    ParameterKind.DURATION: parse_duration_ms,
}
