"""Gradient steps through whole torch modules: on the processor, or with all that a step touches on a device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .adam import EPSILON
from .learner import Learner, Loss, Outputs
from .policies.actor_critic import MlpActorCritic
from .policies.mlp import Floats
from .policies.torch_actor_critic import TorchActorCritic, TorchNetworks
from .policies.torch_heads import torch_distribution
from .sequences import Sequences


class ModuleLearner(Learner):
    """Of a policy whose network is a torch module; recurrent ones take :class:`Sequences` for observations.

    Args:
        policy: makes the network.
        parameters: [num_parameters], copied.
    """

    def __init__(self, policy: TorchActorCritic | MlpActorCritic, parameters: Floats) -> None:
        super().__init__(parameters)
        self._policy = policy
        self._networks = TorchNetworks(policy)
        self._networks.use(self.parameters, self.gradient)

    def _loss(
        self, observations: Any, batch: Any, loss: Loss
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        networks = self._networks
        if isinstance(observations, Sequences):
            rows = networks.tensor(observations.observations)[networks.tensor(observations.valid)]
            outputs, values, features = self._unrolled(observations)
        else:
            rows = networks.tensor(observations)
            outputs, values, features, _ = networks(networks.observations(rows))
        masks: Any = self._policy.layout.masks(rows)
        distribution = torch_distribution(self._policy.head, outputs, networks.log_std, masks, features)
        return loss(Outputs(distribution, values), batch)

    def _unrolled(self, sequences: Sequences) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Outputs [N, num_outputs], values [N], features [N, F] of the valid rows; gradients flow back through time."""
        networks, module = self._networks, self._networks.module
        length, count = sequences.first.shape
        rows = sequences.observations.reshape(length * count, -1)
        encoded = module.encode(networks.observations(rows)).view(length, count, -1)
        memory, keep = networks.tensor(sequences.memory), networks.tensor(~sequences.first).float().unsqueeze(2)
        features = []
        for t in range(length):
            feature, memory = module.recur(encoded[t], memory * keep[t])
            features.append(feature)
        seen = torch.stack(features)[networks.tensor(sequences.valid)]
        return *module.read(seen), seen

    def _backward(self, scalar: torch.Tensor) -> None:
        self.gradient[...] = np.float32(0)
        scalar.backward()  # type: ignore[no-untyped-call]


class DeviceLearner(ModuleLearner):
    """On a device: parameters, gradient and Adam's averages stay there from step to step.

    What :class:`Learner` has of these are copies here, made when they are asked for: weights once an update, the rest
    for a checkpoint. So states are the same arrays as on the processor, and a run may change from one to the other.

    Args:
        policy: makes the network; of one in NumPy the module with the same parameters.
        parameters: [num_parameters], copied.
        device: as torch names it.
    """

    def __init__(self, policy: TorchActorCritic | MlpActorCritic, parameters: Floats, device: str) -> None:
        super().__init__(policy, parameters)
        self._flat = torch.from_numpy(self.parameters).to(device, copy=True)
        self._gradient = self._flat.grad = torch.zeros_like(self._flat)
        self._networks.use(self._flat, self._gradient)
        self._optimiser = torch.optim.Adam([self._flat], eps=EPSILON)
        self._averages: dict[str, torch.Tensor] = {
            "step": torch.zeros(()), "exp_avg": torch.zeros_like(self._flat), "exp_avg_sq": torch.zeros_like(self._flat)
        }
        self._optimiser.state[self._flat] = self._averages

    def place(self, array: NDArray[Any]) -> torch.Tensor:
        tensor: torch.Tensor = self._networks.tensor(array)
        return tensor

    def descend(self, learning_rate: float, max_grad_norm: float) -> None:
        torch.nn.utils.clip_grad_norm_([self._flat], max_grad_norm)
        self._optimiser.param_groups[0]["lr"] = learning_rate
        self._optimiser.step()

    def gradient_of(self, observations: Any, batch: Any, loss: Any) -> tuple[Floats, dict[str, Any]]:
        _, statistics = super().gradient_of(observations, batch, loss)
        self.gradient[...] = self._gradient.cpu()
        return self.gradient.copy(), statistics

    def weights(self) -> Floats:
        self.parameters[...] = self._flat.cpu()
        return super().weights()

    def state(self) -> dict[str, Any]:
        self.adam.mean[...] = self._averages["exp_avg"].cpu()
        self.adam.square[...] = self._averages["exp_avg_sq"].cpu()
        self.adam.steps = int(self._averages["step"])
        return super().state()

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self._flat.copy_(torch.from_numpy(self.parameters))
        self._averages["exp_avg"].copy_(torch.from_numpy(self.adam.mean))
        self._averages["exp_avg_sq"].copy_(torch.from_numpy(self.adam.square))
        self._averages["step"].fill_(self.adam.steps)

    def _backward(self, scalar: torch.Tensor) -> None:
        self._gradient.zero_()
        scalar.backward()  # type: ignore[no-untyped-call]
