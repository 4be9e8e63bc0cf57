"""A trained policy as one torch module: all that lies between an observation and the action an environment takes.

Whoever runs an exported policy has no rlflow. What is left out of the file, normalisation of observations or clipping
of actions, would have to be written again there, and would be wrong in silence. So the module holds all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from rlflow.algorithms.normalization import CLIP, Normaliser
from rlflow.algorithms.policies import heads
from rlflow.algorithms.policies.actor import MlpActor
from rlflow.algorithms.policies.actor_critic import MlpActorCritic
from rlflow.algorithms.policies.torch_actor_critic import TorchActorCritic, TorchNetworks

from .errors import InputError

if TYPE_CHECKING:
    from rlflow.algorithms.base import TrainedPolicy
    from rlflow.algorithms.policies.mlp import Floats, MlpSpec

CLEAR = 1e-5
"""Logits that differ by less, relative to their size, may be ordered either way by another order of summation."""


class ExportedPolicy(nn.Module):
    """Observations [N, O] float32, laid out as rlflow does, → the policy's most likely actions [N, ...].

    A recurrent policy takes its memory [N, M] beside them, zeros at an episode's first step, and gives the next.
    """

    columns: torch.Tensor
    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, policy: TrainedPolicy) -> None:
        """
        Raises:
            InputError: a kind of policy or of actions that cannot be exported.
        """
        super().__init__()
        shape = policy.policy
        self.memory_size = 0
        self.network: nn.Module
        if isinstance(shape, MlpActorCritic):
            self.network = _network(shape.policy_spec, shape.split(policy.weights)[0])
        elif isinstance(shape, MlpActor):
            self.network = _network(shape.network, policy.weights)
        elif isinstance(shape, TorchActorCritic):
            self.network = _Networks(shape, policy.weights)
            self.memory_size = self.network.memory_size
        else:
            raise InputError(f"a policy of class {type(shape).__name__} cannot be exported")
        layout = shape.layout
        self.observation_size = layout.size
        self._features = layout.feature_size
        self._masked = bool(layout.mask_size)
        self._normalised = policy.moments is not None
        if policy.moments is not None:
            normaliser = Normaliser(policy.moments, layout)
            self.register_buffer("columns", torch.from_numpy(layout.normalised_columns()))
            self.register_buffer("mean", torch.from_numpy(normaliser.mean))
            self.register_buffer("scale", torch.from_numpy(normaliser.scale))
        self.head = _head(shape.head)

    def forward(self, observation: torch.Tensor, memory: torch.Tensor | None = None) -> Any:
        rows, after = self.rows(observation, memory)
        return self.head(rows) if memory is None else (self.head(rows), after)

    def rows(self, observation: torch.Tensor, memory: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """[N, O], [N, M] → what actions are decided by, logits or means, and the memory after."""
        seen = observation
        if self._normalised:
            normal = ((observation - self.mean) * self.scale).clamp(-CLIP, CLIP)
            seen = torch.where(self.columns, normal, observation)
        features = seen[:, : self._features]
        outputs, after = (self.network(features), None) if memory is None else self.network(features, memory)
        if self._masked:
            allowed = seen[:, self._features :] > 0
            outputs = outputs + torch.where(allowed, 0.0, float(heads.FORBIDDEN))
        return outputs, after

    def clear(self, observation: torch.Tensor, memory: torch.Tensor | None = None) -> Any:
        """[N, O] → [N, ...] whether a choice is clear, so that rounding cannot decide it; and the memory after."""
        rows, after = self.rows(observation, memory)
        return self.head.clear(rows), after


class _Networks(nn.Module):
    """A policy's own torch module, from features as rows to the head's outputs."""

    def __init__(self, shape: TorchActorCritic, weights: Floats) -> None:
        super().__init__()
        self._networks = TorchNetworks(shape)
        self._networks.use(weights.copy())
        self._parts = shape.layout.parts
        self.module = self._networks.module.eval()
        self.memory_size = self._networks.memory_size

    def forward(self, features: torch.Tensor, memory: torch.Tensor | None = None) -> Any:
        named = {}
        for part in self._parts:
            values = features[:, part.start : part.start + part.size]
            named[part.name] = values if part.image is None else values.reshape(-1, *part.image) / 255
        outputs, _, _, after = self._networks(named.get("", named), memory)
        return outputs if memory is None else (outputs, after)


class _Head(nn.Module):
    """Rows [N, R] → actions [N, ...]."""

    def clear(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows [N, R] → [N, ...] whether rounding cannot decide the action."""
        raise NotImplementedError


class _Choices(_Head):
    """One choice or several, each by the largest of its logits."""

    start: torch.Tensor

    def __init__(self, sizes: Sequence[int], start: Any, shape: tuple[int, ...]) -> None:
        super().__init__()
        self._sizes, self._shape = list(sizes), shape
        self.register_buffer("start", torch.as_tensor(np.array(start, np.int64)))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        chosen = torch.stack([part.argmax(dim=1) for part in torch.split(rows, self._sizes, dim=1)], dim=1)
        return chosen.reshape(-1, *self._shape) + self.start

    def clear(self, rows: torch.Tensor) -> torch.Tensor:
        best = [part.topk(min(2, part.shape[1]), dim=1).values for part in torch.split(rows, self._sizes, dim=1)]
        apart = torch.stack([(two[:, 0] - two[:, -1]) / (1 + two[:, 0].abs()) for two in best], dim=1)
        single = torch.tensor([size == 1 for size in self._sizes])
        return ((apart > CLEAR) | single).reshape(-1, *self._shape)


class _Bits(_Head):
    """Each set where its log-odds are above 0."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self._shape = shape

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return (rows > 0).to(torch.int8).reshape(-1, *self._shape)

    def clear(self, rows: torch.Tensor) -> torch.Tensor:
        return (rows.abs() > CLEAR).reshape(-1, *self._shape)


class _Clipped(_Head):
    """Means, within the bounds of the space."""

    low: torch.Tensor
    high: torch.Tensor

    def __init__(self, low: np.ndarray, high: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("low", torch.from_numpy(low.astype(np.float32)))
        self.register_buffer("high", torch.from_numpy(high.astype(np.float32)))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.reshape(-1, *self.low.shape).maximum(self.low).minimum(self.high)

    def clear(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(rows.reshape(-1, *self.low.shape), dtype=torch.bool)


def _head(head: Any) -> _Head:
    if type(head) is heads.Categorical:
        return _Choices([head.num_outputs], head._start, ())
    if type(head) is heads.MultiCategorical:
        return _Choices(head.sizes, head._start, head._shape)
    if type(head) is heads.Bernoulli:
        return _Bits(head._shape)
    if isinstance(head, heads.DiagonalGaussian):
        return _Clipped(head._low, head._high)
    raise InputError(f"actions of kind {type(head).__name__} cannot be exported")


def _network(spec: MlpSpec, weights: Floats) -> nn.Sequential:
    layers: list[nn.Module] = []
    for matrix, bias in spec.layers(weights):
        if layers:
            layers.append(nn.Tanh() if spec.activation == "tanh" else nn.ReLU())
        layer = nn.Linear(*matrix.shape)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(matrix.T.copy()))
            layer.bias.copy_(torch.from_numpy(bias.copy()))
        layers.append(layer)
    return nn.Sequential(*layers)
