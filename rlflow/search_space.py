"""What ``rlflow tune`` may vary, as a config has it: ``loguniform(1e-5, 1e-2)``, ``int(1, 20)``, ``[32, 64]``."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna

_RANGE = re.compile(r"(\w+)\(\s*([^,\s]+)\s*,\s*([^,\s]+)\s*\)")
_KINDS = ("uniform", "loguniform", "int", "logint")

HOW = "write uniform(a, b), loguniform(a, b), int(a, b), logint(a, b), or a list of choices"


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included."""

    low: float
    high: float
    whole: bool
    logarithmic: bool

    def suggest(self, trial: optuna.Trial, key: str) -> float | int:
        if self.whole:
            return trial.suggest_int(key, int(self.low), int(self.high), log=self.logarithmic)
        return trial.suggest_float(key, self.low, self.high, log=self.logarithmic)

    def value_of(self, parameter: Any) -> Any:
        """What a trial's parameter, as the library keeps it, stands for."""
        return parameter

    def first(self) -> float | int:
        """A value to check a config with."""
        return int(self.low) if self.whole else self.low


@dataclass(frozen=True)
class Choice:
    """One of several values, which have no order."""

    values: tuple[Any, ...]

    def suggest(self, trial: optuna.Trial, key: str) -> Any:
        written = [json.dumps(value) for value in self.values]  # the library takes no lists for choices
        return self.value_of(trial.suggest_categorical(key, written))

    def value_of(self, parameter: Any) -> Any:
        return json.loads(parameter)

    def first(self) -> Any:
        return self.values[0]


def parse_dimension(written: Any) -> Range | Choice:
    """One entry of a search space.

    Raises:
        ValueError: it is none; the message says what is.
    """
    if isinstance(written, list):
        if len(written) < 2:
            raise ValueError("a list of choices needs two or more")
        return Choice(tuple(written))
    match = _RANGE.fullmatch(written.strip()) if isinstance(written, str) else None
    if match is None or match[1] not in _KINDS:
        raise ValueError(f"expected a range or choices, got {written!r}; {HOW}")
    try:
        low, high = float(match[2]), float(match[3])
    except ValueError:
        raise ValueError(f"the ends of {written!r} are no numbers; {HOW}") from None
    found = Range(low, high, match[1].endswith("int"), match[1].startswith("log"))
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"{written!r}: the first end must be below the second, and both finite")
    if found.whole and not (low.is_integer() and high.is_integer()):
        raise ValueError(f"{written!r}: the ends must be whole numbers")
    if found.logarithmic and low <= 0:
        raise ValueError(f"{written!r}: a logarithmic range begins above 0")
    return found
