"""Gradient steps in which autograd sees only the networks' outputs.

A loss is written once, in torch, as a function of those outputs. Autograd gives d loss / d outputs; the NumPy
networks carry that back to their parameters, and clipping and Adam work on one flat vector. On small networks
this is several times faster than autograd through every layer, and a loss of one's own stays as fast.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .adam import Adam, clip_to_norm
from .errors import StateError
from .policies.actor_critic import BoundActorCritic, MlpActorCritic
from .policies.mlp import Floats

if TYPE_CHECKING:  # who writes the gradient of a loss out needs no torch
    import torch

    from .policies.torch_heads import TorchDistribution

Loss = Callable[["Outputs", Any], "tuple[torch.Tensor, dict[str, torch.Tensor]]"]


class OutputGradient(ABC):
    """In place of a :data:`Loss`: one whose gradient with respect to the networks' outputs is written out."""

    outputs: Floats
    """[N, num_outputs], d loss / d outputs of the policy network, of the last call."""
    values: Floats
    """[N], d loss / d values."""
    log_std: Floats | None
    """[A], d loss / d log standard deviations; ``None`` for heads without."""

    @abstractmethod
    def __call__(self, outputs: Floats, values: Floats, log_std: Floats | None, batch: Any) -> dict[str, float]:
        """Outputs [N, num_outputs], values [N], log standard deviations [A] → statistics."""


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
        self, observations: Any, batch: Any, loss: Loss | OutputGradient, learning_rate: float,
        max_grad_norm: float, accept: Callable[[dict[str, Any]], bool] | None = None,
    ) -> tuple[dict[str, Any], bool]:
        """One step of gradient descent on ``loss(outputs, batch)``.

        Args:
            observations: [N, O], an array, or of what :meth:`place` gave.
            batch: handed to ``loss`` as it is.
            accept: looks at the loss's statistics; ``False`` leaves the parameters as they are.

        Returns:
            the statistics of ``loss``, and whether the step was taken.
        """
        scalar, statistics = self._loss(observations, batch, loss)
        if accept is not None and not accept(statistics):
            return statistics, False
        self._backward(scalar)
        self.descend(learning_rate, max_grad_norm)
        return statistics, True

    def descend(self, learning_rate: float, max_grad_norm: float) -> None:
        """A step against what ``gradient`` holds, which is clipped."""
        clip_to_norm(self.gradient, max_grad_norm)
        self.adam.step(self.parameters, self.gradient, learning_rate)

    def gradient_of(
        self, observations: Any, batch: Any, loss: Loss | OutputGradient
    ) -> tuple[Floats, dict[str, Any]]:
        """d loss / d parameters [num_parameters], and the statistics of ``loss``; no step is taken."""
        scalar, statistics = self._loss(observations, batch, loss)
        self._backward(scalar)
        return self.gradient.copy(), statistics

    def place(self, array: NDArray[Any]) -> Any:
        """Where gradients are taken: an array as it is, or a tensor on a device, for the batches of an iteration."""
        return array

    def weights(self) -> Floats:
        """A copy of the parameters [num_parameters]."""
        return self.parameters.copy()

    @abstractmethod
    def _loss(self, observations: Any, batch: Any, loss: Any) -> tuple[Any, dict[str, Any]]:
        """``loss`` of the networks' outputs for ``observations``, to go back from, and its statistics."""

    @abstractmethod
    def _backward(self, scalar: Any) -> None:
        """Overwrites ``gradient`` with that of the last loss."""

    def state(self) -> dict[str, Any]:
        return {"parameters": self.weights(), "adam": self.adam.state()}

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

    def _loss(
        self, observations: Floats, batch: Any, loss: Loss | OutputGradient
    ) -> tuple[torch.Tensor | OutputGradient, dict[str, Any]]:
        networks = self._networks
        features, masks = networks.layout.features(observations), networks.layout.masks(observations)
        outputs = networks.policy.forward(features)
        values = networks.value.forward(features)[:, 0]
        if isinstance(loss, OutputGradient):
            return loss, loss(outputs, values, networks.log_std, batch)

        import torch

        from .policies.torch_heads import torch_distribution

        rows, leaves = self._leaves
        if rows != len(observations):  # the networks' buffers are the tensors' memory: made once
            arrays = [outputs, values] + ([] if networks.log_std is None else [networks.log_std])
            leaves = [torch.from_numpy(array).requires_grad_() for array in arrays]
            self._leaves = (len(observations), leaves)
        log_std = leaves[2] if len(leaves) > 2 else None
        allowed = None if masks is None else torch.from_numpy(masks)
        hidden = torch.from_numpy(networks.policy.features) if networks.head.row_size > outputs.shape[1] else None
        return loss(Outputs(torch_distribution(networks.head, leaves[0], log_std, allowed, hidden), leaves[1]), batch)

    def _backward(self, scalar: torch.Tensor | OutputGradient) -> None:
        networks = self._networks
        arrays: list[Any]
        if isinstance(scalar, OutputGradient):
            arrays = [scalar.outputs, scalar.values, scalar.log_std]
        else:
            import torch

            leaves = self._leaves[1]
            gradients = torch.autograd.grad(scalar, leaves, allow_unused=True)
            arrays = [  # a loss may leave an output out
                gradient.numpy() if gradient is not None else np.zeros(tuple(leaf.shape), np.float32)
                for gradient, leaf in zip(gradients, leaves, strict=True)
            ]
        networks.policy.backward(arrays[0])
        networks.value.backward(arrays[1].reshape(-1, 1))
        if networks.log_std_gradient is not None:
            networks.log_std_gradient[...] = arrays[2]
