"""The distributions of ``heads`` in torch, for losses.

Each keeps what log_prob and entropy share and uses few operations: at these sizes every torch call costs
microseconds, whatever it computes.
"""

from __future__ import annotations

import torch

from .heads import LOG_2PI, Head


class TorchCategorical:
    """Categorical over the last axis of ``logits`` [N, n]."""

    def __init__(self, logits: torch.Tensor) -> None:
        self.log_probs = torch.log_softmax(logits, 1)

    def log_prob(self, actions: torch.Tensor) -> torch.Tensor:
        """[N] int64 → [N]."""
        return self.log_probs.gather(1, actions.unsqueeze(1)).squeeze(1)

    def entropy(self) -> torch.Tensor:
        """[N], in nats."""
        return -(self.log_probs.exp() * self.log_probs).sum(1)


class TorchDiagonalGaussian:
    """Independent normals with ``mean`` [N, A] and one ``log_std`` [A] for all rows."""

    def __init__(self, mean: torch.Tensor, log_std: torch.Tensor) -> None:
        self.mean = mean
        self.log_std = log_std

    def log_prob(self, actions: torch.Tensor) -> torch.Tensor:
        """[N, A] → [N], summed over dimensions."""
        scaled = (actions - self.mean) * (-self.log_std).exp()
        return scaled.square().sum(1).mul(-0.5) - (self.log_std.sum() + 0.5 * LOG_2PI * self.mean.shape[1])

    def entropy(self) -> torch.Tensor:
        """A scalar (the same for every row), in nats."""
        return self.log_std.sum() + 0.5 * (1.0 + LOG_2PI) * self.mean.shape[1]


TorchDistribution = TorchCategorical | TorchDiagonalGaussian


def torch_distribution(head: Head, outputs: torch.Tensor, log_std: torch.Tensor | None) -> TorchDistribution:
    """The distribution of ``head`` over the policy network's ``outputs`` [N, num_outputs]."""
    if head.kind == "categorical":
        return TorchCategorical(outputs)
    assert log_std is not None
    return TorchDiagonalGaussian(outputs, log_std)
