"""Gradient steps in which autograd sees only the networks' outputs.

A loss is written once, in torch, as a function of those outputs. Autograd gives d loss / d outputs; the NumPy
networks carry that back to their parameters, and clipping and Adam work on one flat vector. On small networks
this is several times faster than autograd through every layer, and a loss of one's own stays as fast.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .adam import Adam, clip_to_norm
from .errors import StateError
from .policies.actor_critic import BoundActorCritic, MlpActorCritic
from .policies.mlp import Floats
from .policies.torch_heads import TorchDistribution, torch_distribution

Loss = Callable[["Outputs", Any], tuple[torch.Tensor, dict[str, torch.Tensor]]]


@dataclass
class Outputs:
    """What a loss may depend on, for N observations."""

    distribution: TorchDistribution
    """Of actions: ``log_prob(actions)`` [N], ``entropy()``."""
    values: torch.Tensor
    """[N]"""


class Learner(ABC):
    """Parameters, gradient and optimiser of one policy; how a gradient comes about is the subclass's part.

    Args:
        parameters: [num_parameters], copied.
    """

    def __init__(self, parameters: Floats) -> None:
        self.parameters = np.array(parameters, np.float32)
        self.gradient = np.zeros_like(self.parameters)
        self.adam = Adam(len(self.parameters))

    def step(
        self, observations: Any, batch: Any, loss: Loss, learning_rate: float, max_grad_norm: float,
        accept: Callable[[dict[str, torch.Tensor]], bool] | None = None,
    ) -> tuple[dict[str, torch.Tensor], bool]:
        """One step of gradient descent on ``loss(outputs, batch)``.

        Args:
            observations: [N, O].
            batch: handed to ``loss`` as it is.
            accept: looks at the loss's statistics; ``False`` leaves the parameters as they are.

        Returns:
            the statistics of ``loss``, and whether the step was taken.
        """
        scalar, statistics = self._loss(observations, batch, loss)
        if accept is not None and not accept(statistics):
            return statistics, False
        self._backward(scalar)
        clip_to_norm(self.gradient, max_grad_norm)
        self.adam.step(self.parameters, self.gradient, learning_rate)
        return statistics, True

    def gradient_of(
        self, observations: Any, batch: Any, loss: Loss
    ) -> tuple[Floats, dict[str, torch.Tensor]]:
        """d loss / d parameters [num_parameters], and the statistics of ``loss``; no step is taken."""
        scalar, statistics = self._loss(observations, batch, loss)
        self._backward(scalar)
        return self.gradient.copy(), statistics

    @abstractmethod
    def _loss(self, observations: Any, batch: Any, loss: Loss) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The networks' outputs for ``observations``, and ``loss`` of them."""

    @abstractmethod
    def _backward(self, scalar: torch.Tensor) -> None:
        """Overwrites ``gradient`` with that of the last loss."""

    def state(self) -> dict[str, Any]:
        return {"parameters": self.parameters.copy(), "adam": self.adam.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Raises StateError when it is the state of another network."""
        found, expected = np.size(state["parameters"]), len(self.parameters)
        if found != expected:
            raise StateError(f"this state has {found} parameters; the policy of this config has {expected}")
        self.parameters[...] = state["parameters"]
        self.adam.load_state(state["adam"])


class OutputLearner(Learner):
    """Of networks in NumPy: autograd runs to their outputs only.

    Args:
        policy: the networks' shape.
        parameters: [num_parameters], copied.
    """

    def __init__(self, policy: MlpActorCritic, parameters: Floats) -> None:
        super().__init__(parameters)
        self._networks = BoundActorCritic(policy, self.parameters, self.gradient)
        self._leaves: tuple[int, list[torch.Tensor]] = (-1, [])

    def _loss(self, observations: Floats, batch: Any, loss: Loss) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        networks = self._networks
        features, masks = networks.layout.features(observations), networks.layout.masks(observations)
        outputs = networks.policy.forward(features)
        values = networks.value.forward(features)
        rows, leaves = self._leaves
        if rows != len(observations):  # the networks' buffers are the tensors' memory: made once
            arrays = [outputs, values[:, 0]] + ([] if networks.log_std is None else [networks.log_std])
            leaves = [torch.from_numpy(array).requires_grad_() for array in arrays]
            self._leaves = (len(observations), leaves)
        log_std = leaves[2] if len(leaves) > 2 else None
        allowed = None if masks is None else torch.from_numpy(masks)
        return loss(Outputs(torch_distribution(networks.head, leaves[0], log_std, allowed), leaves[1]), batch)

    def _backward(self, scalar: torch.Tensor) -> None:
        networks, leaves = self._networks, self._leaves[1]
        gradients = torch.autograd.grad(scalar, leaves, allow_unused=True)
        arrays = [  # a loss may leave an output out
            gradient.numpy() if gradient is not None else np.zeros(tuple(leaf.shape), np.float32)
            for gradient, leaf in zip(gradients, leaves, strict=True)
        ]
        networks.policy.backward(arrays[0])
        networks.value.backward(arrays[1].reshape(-1, 1))
        if networks.log_std_gradient is not None:
            networks.log_std_gradient[...] = arrays[2]
