"""The gradient of PPO's own loss with respect to the networks' outputs, written out.

At the sizes PPO trains on, autograd's bookkeeping costs as much as the networks: 0.2 ms of a step of 0.5 on CartPole.
``PPO.loss`` stays the definition, and whoever overrides it has autograd; a test holds this file to it. It is
used for the two commonest heads, and needs no torch: a learner that takes it starts a second earlier.

With ℓ = log π(a|s), r = exp(ℓ − ℓ_old) and N rows, d loss / d ℓ = −r · A / N where the clipped surrogate (Schulman et
al. 2017, eq. 7) lets r through, and 0 where it does not. The heads carry that on:

- categorical, p = softmax(z):  dℓ/dz_j = 1[j = a] − p_j,  dH/dz_j = −p_j · (log p_j + H);
- diagonal Gaussian, u = (a − μ)/σ:  dℓ/dμ = u/σ,  dℓ/d log σ = u² − 1,  dH/d log σ = 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .learner import OutputGradient
from .policies.actor_critic import MlpActorCritic
from .policies.heads import LOG_2PI, Categorical, DiagonalGaussian, Head
from .policies.mlp import Floats
from .policies.protocol import Policy

Statistics = dict[str, float]


class SurrogateGradient(OutputGradient):
    """Takes the place of ``PPO.loss`` where that is not overridden.

    Args:
        head: of the policy.
        value_coef: weight of the value loss.
    """

    @classmethod
    def for_policy(cls, policy: Policy, value_coef: float) -> SurrogateGradient | None:
        """``None`` where autograd has to do it."""
        plain = isinstance(policy, MlpActorCritic) and not policy.layout.mask_size
        return cls(policy.head, value_coef) if plain and type(policy.head) in (Categorical, DiagonalGaussian) else None

    def __init__(self, head: Head, value_coef: float) -> None:
        self._head, self._value_coef = head, np.float32(value_coef)
        self.values = np.empty(0, np.float32)
        self.log_std = None

    def __call__(self, outputs: Floats, values: Floats, log_std: Floats | None, batch: Any) -> Statistics:
        """The statistics are those of ``PPO.loss``; ``batch`` is of arrays."""
        if len(values) != len(self.values):
            self._resize(len(values))
        if log_std is None:
            log_prob, entropy = self._categorical(outputs, batch.actions)
        else:
            log_prob, entropy = self._gaussian(outputs, log_std, batch.actions)
        count = np.float32(len(values))
        log_ratio = log_prob - batch.old_log_probs
        ratio = np.exp(log_ratio)
        bounded = np.minimum(ratio, batch.ratio_high)
        np.maximum(bounded, batch.ratio_low, out=bounded)
        push = batch.advantages * ratio
        push *= bounded == ratio
        push /= -count
        self._to_policy(push, batch.entropy_coef)
        squared_error = self._to_values(values, batch)
        if not batch.report:
            return {}
        return {
            "policy_loss": -float(batch.advantages.dot(bounded) / count),
            "value_loss": float(squared_error.mean()),
            "entropy": float(np.mean(self._entropy() if entropy is None else entropy)),
            "kl": float((ratio - 1.0 - log_ratio).mean()),  # k3 of http://joschu.net/blog/kl-approx.html
            "clip_fraction": float((np.abs(ratio - 1.0) > batch.clip_range).mean()),
        }

    def _to_values(self, values: Floats, batch: Any) -> Floats:
        """Leaves d loss / d values; returns the squared errors [N]."""
        error = values - batch.returns
        squared: Floats = error * error
        limit = batch.clip_range_value
        if limit is not None:
            moved = values - batch.old_values
            clipped = batch.old_values + np.clip(moved, -limit, limit) - batch.returns
            worse = clipped * clipped > squared
            squared = np.where(worse, clipped * clipped, squared)
            error = np.where(worse, clipped * (np.abs(moved) <= limit), error)
        np.multiply(error, 2.0 * self._value_coef / len(values), out=self.values)
        return squared

    def _categorical(self, logits: Floats, actions: Any) -> tuple[Floats, None]:
        """log π(a|s) [N]. One row a choice and not one a sample: reductions over short rows are slow."""
        shifted = self._shifted
        np.copyto(shifted, logits.T)
        shifted -= shifted.max(axis=0)
        np.exp(shifted, out=self._p)
        total = self._p.sum(axis=0)
        self._p /= total
        self._log_total = np.log(total)
        np.multiply(actions, len(actions), out=self._chosen)
        self._chosen += self._column  # where each action's entry is in [n, N]
        log_prob: Floats = shifted.ravel()[self._chosen] - self._log_total
        return log_prob, None

    def _entropy(self) -> Floats:
        """[N], Σ −p log p."""
        shifted = self._shifted - self._log_total
        entropy: Floats = -(self._p * shifted).sum(axis=0)
        return entropy

    def _gaussian(self, mean: Floats, log_std: Floats, actions: Floats) -> tuple[Floats, float]:
        """(log π(a|s) [N], entropy)."""
        self._inverse = np.exp(-log_std)
        np.subtract(actions, mean, out=self._scaled)
        self._scaled *= self._inverse
        dimensions = mean.shape[1]
        level = np.float32(log_std.sum() + 0.5 * LOG_2PI * dimensions)
        log_prob: Floats = -0.5 * np.einsum("na,na->n", self._scaled, self._scaled) - level
        return log_prob, float(level + 0.5 * dimensions)

    def _to_policy(self, push: Floats, entropy_coef: float) -> None:
        """``push`` [N] is d loss / d log π(a|s)."""
        if isinstance(self._head, DiagonalGaussian):
            np.multiply(self._scaled, push[:, None], out=self.outputs)
            self.log_std = np.einsum("na,na->a", self.outputs, self._scaled) - push.sum() - np.float32(entropy_coef)
            self.outputs *= self._inverse
            return
        gradient = self._p * -push
        gradient.ravel()[self._chosen] += push
        if entropy_coef:
            log_p = self._shifted - self._log_total
            log_p += -(self._p * log_p).sum(axis=0)
            log_p *= self._p
            log_p *= np.float32(entropy_coef / len(push))
            gradient += log_p
        np.copyto(self.outputs, gradient.T)

    def _resize(self, rows: int) -> None:
        width = self._head.num_outputs
        self.outputs, self.values = np.empty((rows, width), np.float32), np.empty(rows, np.float32)
        if isinstance(self._head, DiagonalGaussian):
            self._scaled = np.empty((rows, width), np.float32)
        else:
            self._shifted, self._p = np.empty((2, width, rows), np.float32)
            self._column, self._chosen = np.arange(rows), np.empty(rows, np.int64)
