"""The gradient of A3C's own loss with respect to the networks' outputs, written out.

As ``ppo_gradient.py``, whose two heads it uses: at these sizes autograd's bookkeeping shows, and workers that need no
torch start sooner. ``A3C.loss`` stays the definition, and whoever overrides it has autograd.

With N rows, d loss / d log π(a|s) = −A / N (Mnih et al. 2016, algorithm S3), and d loss / d V = 2 · c_V · (V − R) / N.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .policies.mlp import Floats
from .ppo_gradient import Statistics, SurrogateGradient


class PolicyGradient(SurrogateGradient):
    """Takes the place of ``A3C.loss`` where that is not overridden."""

    def __call__(self, outputs: Floats, values: Floats, log_std: Floats | None, batch: Any) -> Statistics:
        """The statistics are those of ``A3C.loss``; ``batch`` is of arrays."""
        count = len(values)
        if count != len(self.values):
            self._resize(count)
        if log_std is None:
            log_prob, entropy = self._categorical(outputs, batch.actions)
        else:
            log_prob, entropy = self._gaussian(outputs, log_std, batch.actions)
        self._to_policy(batch.advantages / np.float32(-count), batch.entropy_coef)
        error = values - batch.returns
        np.multiply(error, 2.0 * self._value_coef / count, out=self.values)
        return {
            "policy_loss": -float(batch.advantages.dot(log_prob) / count),
            "value_loss": float(error.dot(error) / count),
            "entropy": float(np.mean(self._entropy() if entropy is None else entropy)),
        }
