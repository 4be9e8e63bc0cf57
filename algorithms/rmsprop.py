"""RMSProp on one flat vector, as A3C shares it between its workers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class RmsProp:
    """Mnih et al. 2016 (arXiv:1602.01783), equations S2 and S3, without momentum; ε stands under the root.

    Args:
        size: length of the parameter vector.
    """

    def __init__(self, size: int, decay: float = 0.99, epsilon: float = 1e-5) -> None:
        self.square = np.zeros(size, np.float32)
        self._decay, self._epsilon = decay, epsilon

    def step(self, parameters: Floats, gradient: Floats, learning_rate: float) -> None:
        """Moves ``parameters`` [size] in place, against ``gradient`` [size]."""
        self.square *= self._decay
        self.square += (1.0 - self._decay) * np.square(gradient)
        parameters -= learning_rate * gradient / np.sqrt(self.square + self._epsilon)

    def state(self) -> dict[str, Any]:
        return {"square": self.square.copy()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.square[...] = state["square"]
