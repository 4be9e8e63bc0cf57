"""The distributions of ``heads`` in torch, for losses.

Each keeps what log_prob and entropy share and uses few operations: at these sizes every torch call costs
microseconds, whatever it computes.
"""

from __future__ import annotations

from typing import Protocol

import torch

from .heads import (
    FORBIDDEN,
    LOG_2PI,
    SMALL_VARIANCE,
    Bernoulli,
    Categorical,
    DiagonalGaussian,
    Head,
    MultiCategorical,
    StateDependentGaussian,
)


class TorchDistribution(Protocol):
    """Of N actions."""

    def log_prob(self, actions: torch.Tensor) -> torch.Tensor:
        """N actions, as rollouts give them → [N]."""

    def entropy(self) -> torch.Tensor:
        """[N] in nats, or a scalar where it is the same for every row."""


class TorchCategorical:
    """Categorical over the last axis of ``logits`` [N, n]; actions are int64 [N]."""

    def __init__(self, logits: torch.Tensor) -> None:
        self.log_probs = torch.log_softmax(logits, 1)

    def log_prob(self, actions: torch.Tensor) -> torch.Tensor:
        """[N] int64 → [N]."""
        return self.log_probs.gather(1, actions.unsqueeze(1)).squeeze(1)

    def entropy(self) -> torch.Tensor:
        """[N]"""
        return -(self.log_probs.exp() * self.log_probs).sum(1)


class TorchMultiCategorical:
    """k independent choices, whose logits are ``logits`` [N, Σ sizes] in turn; actions are int64 [N, k]."""

    def __init__(self, logits: torch.Tensor, sizes: list[int]) -> None:
        self.choices = [TorchCategorical(part) for part in torch.split(logits, sizes, 1)]

    def log_prob(self, actions: torch.Tensor) -> torch.Tensor:
        """[N, k] int64 → [N]."""
        return torch.stack([choice.log_prob(actions[:, i]) for i, choice in enumerate(self.choices)]).sum(0)

    def entropy(self) -> torch.Tensor:
        """[N]"""
        return torch.stack([choice.entropy() for choice in self.choices]).sum(0)


class TorchBernoulli:
    """Independent bits with log-odds ``logits`` [N, n]; actions are float32 [N, n], 0 or 1."""

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits

    def log_prob(self, actions: torch.Tensor) -> torch.Tensor:
        """[N, n] → [N]."""
        return torch.nn.functional.logsigmoid(torch.where(actions > 0, self.logits, -self.logits)).sum(1)

    def entropy(self) -> torch.Tensor:
        """[N]; H = softplus(l) − l · σ(l)."""
        return (torch.nn.functional.softplus(self.logits) - self.logits * self.logits.sigmoid()).sum(1)


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
        """A scalar (the same for every row)."""
        return self.log_std.sum() + 0.5 * (1.0 + LOG_2PI) * self.mean.shape[1]


class TorchStateDependentGaussian:
    """Normals with ``mean`` [N, A] and the variance of ``features`` [N, F] times a matrix with ``log_std`` [F, A].

    Features are taken as given: no gradient flows into them by the variance (Raffin et al. 2021, section 3).
    """

    def __init__(self, mean: torch.Tensor, features: torch.Tensor, log_std: torch.Tensor) -> None:
        self.mean = mean
        self.variance = features.detach().square() @ (2 * log_std).exp() + float(SMALL_VARIANCE)

    def log_prob(self, actions: torch.Tensor) -> torch.Tensor:
        """[N, A] → [N], summed over dimensions."""
        squares = (actions - self.mean).square() / self.variance + self.variance.log() + LOG_2PI
        return squares.sum(1).mul(-0.5)

    def entropy(self) -> torch.Tensor:
        """[N]"""
        return 0.5 * (self.variance.log() + 1.0 + LOG_2PI).sum(1)


def torch_distribution(
    head: Head, outputs: torch.Tensor, log_std: torch.Tensor | None, masks: torch.Tensor | None = None,
    features: torch.Tensor | None = None,
) -> TorchDistribution:
    """The distribution of ``head`` over the policy network's ``outputs`` [N, num_outputs].

    Args:
        log_std: the head's free parameters, if it has any.
        masks: [N, num_outputs], 0 where an action is forbidden.
        features: for state-dependent exploration those of the policy network's last hidden layer, [N, F], and any
            others after them.
    """
    if masks is not None:
        outputs = outputs + (masks == 0) * float(FORBIDDEN)
    if isinstance(head, Categorical):
        return TorchCategorical(outputs)
    if isinstance(head, MultiCategorical):
        return TorchMultiCategorical(outputs, head.sizes)
    if isinstance(head, Bernoulli):
        return TorchBernoulli(outputs)
    assert isinstance(head, DiagonalGaussian) and log_std is not None
    if isinstance(head, StateDependentGaussian):
        assert features is not None
        return TorchStateDependentGaussian(outputs, features[:, :head.features], log_std)
    return TorchDiagonalGaussian(outputs, log_std)
