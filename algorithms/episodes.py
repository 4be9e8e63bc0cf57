"""The episodes that ended while training."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

import numpy as np

RECENT = 100


class EpisodeLog:
    """How many there were, and the returns and lengths of the last hundred."""

    def __init__(self) -> None:
        self.count = 0
        self._recent: deque[tuple[float, int]] = deque(maxlen=RECENT)

    def add(self, returns: Iterable[float], lengths: Iterable[int]) -> None:
        ended = list(zip(returns, lengths, strict=True))
        self._recent.extend(ended)
        self.count += len(ended)

    def metrics(self) -> dict[str, float]:
        """``episodes``, and the means ``episode_return`` and ``episode_length`` once there is an episode."""
        found: dict[str, float] = {"episodes": self.count}
        if self._recent:
            found["episode_return"], found["episode_length"] = np.mean(self._recent, axis=0).tolist()
        return found

    def state(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "returns": [value for value, _ in self._recent],
            "lengths": [length for _, length in self._recent],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.count = state["count"]
        self._recent.clear()
        self._recent.extend(zip(state["returns"], state["lengths"], strict=True))
