"""The episodes that ended while training."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

RECENT = 100


class EpisodeLog:
    """How many there were, and the returns and lengths of the last hundred."""

    def __init__(self) -> None:
        self.count = 0
        self._recent: deque[tuple[float, int]] = deque(maxlen=RECENT)
        self._info: dict[str, deque[float]] = {}

    def add(
        self, returns: Iterable[float], lengths: Iterable[int], info: Mapping[str, Iterable[float]] | None = None
    ) -> None:
        """``info``: other numbers of the same episodes, by name."""
        for name, numbers in (info or {}).items():
            self._info.setdefault(name, deque(maxlen=RECENT)).extend(numbers)
        ended = list(zip(returns, lengths, strict=True))
        self._recent.extend(ended)
        self.count += len(ended)

    def metrics(self) -> dict[str, float]:
        """``episodes``, and the means ``episode_return``, ``episode_length`` and of info once there is an episode."""
        found: dict[str, float] = {"episodes": self.count}
        if self._recent:
            found["episode_return"], found["episode_length"] = np.mean(self._recent, axis=0).tolist()
        found.update({f"episode_{name}": float(np.mean(recent)) for name, recent in self._info.items() if recent})
        return found

    def state(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "returns": [value for value, _ in self._recent],
            "lengths": [length for _, length in self._recent],
            "info": {name: list(recent) for name, recent in self._info.items()},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.count = state["count"]
        self._recent.clear()
        self._recent.extend(zip(state["returns"], state["lengths"], strict=True))
        self._info = {name: deque(recent, RECENT) for name, recent in state.get("info", {}).items()}
