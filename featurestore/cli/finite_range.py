"""Numbers as options: click's own range lets "nan" through, since no comparison with it fails."""

from __future__ import annotations

import math

import click


class FiniteRange(click.FloatRange):
    """A click.FloatRange without "nan" and "inf"."""

    def convert(self, value: float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse one number."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number.", param, ctx)
        return number
