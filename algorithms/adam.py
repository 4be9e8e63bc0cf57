"""Adam and global-norm clipping on one flat vector: torch.optim.Adam's arithmetic in a few NumPy calls."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

EPSILON = 1e-5
"""As PPO implementations use it, where torch's is 1e-8."""


class Adam:
    """Adam (Kingma & Ba 2014, arXiv:1412.6980, algorithm 1).

    Args:
        size: length of the parameter vector.
    """

    def __init__(self, size: int, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = EPSILON) -> None:
        self.mean = np.zeros(size, np.float32)
        self.square = np.zeros(size, np.float32)
        self.steps = 0
        self._beta1, self._beta2, self._epsilon = beta1, beta2, epsilon
        self._scratch = np.empty(size, np.float32)

    def step(self, parameters: Floats, gradient: Floats, learning_rate: float) -> None:
        """Moves ``parameters`` [size] in place, against ``gradient`` [size]."""
        self.steps += 1
        mean, square, scratch = self.mean, self.square, self._scratch
        mean *= self._beta1
        np.multiply(gradient, 1.0 - self._beta1, out=scratch)
        mean += scratch
        square *= self._beta2
        np.multiply(gradient, gradient, out=scratch)
        scratch *= 1.0 - self._beta2
        square += scratch
        # lr · (m / c1) / (√v / √c2 + ε), with the scalars pulled together
        root = (1.0 - self._beta2**self.steps) ** 0.5
        np.sqrt(square, out=scratch)
        scratch += self._epsilon * root
        np.divide(mean, scratch, out=scratch)
        scratch *= learning_rate * root / (1.0 - self._beta1**self.steps)
        parameters -= scratch

    def state(self) -> dict[str, Any]:
        return {"mean": self.mean.copy(), "square": self.square.copy(), "steps": self.steps}

    def load_state(self, state: dict[str, Any]) -> None:
        self.mean[...] = state["mean"]
        self.square[...] = state["square"]
        self.steps = int(state["steps"])


def clip_to_norm(gradient: Floats, max_norm: float) -> float:
    """Scales ``gradient`` [num_parameters] in place to a norm of at most ``max_norm``; returns the one before."""
    norm = math.sqrt(np.dot(gradient, gradient))
    if norm > max_norm:
        gradient *= max_norm / (norm + 1e-6)
    return norm
