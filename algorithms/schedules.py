"""Hyperparameters that change while a run goes on: a number, or ``linear(start, end)``."""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Annotated

from pydantic import AfterValidator

_LINEAR = re.compile(r"linear\(\s*([^,\s]+)\s*,\s*([^,\s]+)\s*\)")


@lru_cache(maxsize=256)
def _endpoints(schedule: float | str) -> tuple[float, float]:
    """(value at the start of the run, value at its end)."""
    if isinstance(schedule, str):
        text = schedule.strip()
        match = _LINEAR.fullmatch(text)
        try:
            first, last = (float(match[1]), float(match[2])) if match else (float(text), float(text))
        except ValueError:
            raise ValueError(
                f"{schedule!r} is not a schedule: write a number, or linear(start, end) as in linear(1e-3, 0)"
            ) from None
    else:
        first = last = float(schedule)
    if not (math.isfinite(first) and math.isfinite(last) and first >= 0 and last >= 0):
        raise ValueError(f"{schedule!r}: the values of a schedule must be finite and at least 0")
    return first, last


def _checked(schedule: float | str) -> float | str:
    first, last = _endpoints(schedule)
    return first if first == last else f"linear({first!r}, {last!r})"


Schedule = Annotated[float | str, AfterValidator(_checked)]
"""A config field's type: a float, or text like ``linear(1e-3, 0)``. Evaluate with :func:`value_at`."""


def value_at(schedule: float | str, progress: float) -> float:
    """The schedule's value when ``progress`` ∈ [0, 1] of the run's env steps are done (clipped to it).

    Raises:
        ValueError: not a schedule.
    """
    first, last = _endpoints(schedule)
    return first + (last - first) * min(max(progress, 0.0), 1.0)
