"""Gradient steps through whole torch modules, on the processor."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .learner import Learner, Loss, Outputs
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

    def __init__(self, policy: TorchActorCritic, parameters: Floats) -> None:
        super().__init__(parameters)
        self._policy = policy
        self._networks = TorchNetworks(policy)
        self._networks.use(self.parameters, self.gradient)

    def _loss(
        self, observations: NDArray[Any] | Sequences, batch: Any, loss: Loss
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        if isinstance(observations, Sequences):
            outputs, values, features = self._unrolled(observations)
            rows = observations.observations[observations.valid]
        else:
            rows = observations
            outputs, values, features, _ = self._networks(self._networks.observations(rows))
        masks = self._policy.layout.masks(rows)
        distribution = torch_distribution(
            self._policy.head, outputs, self._networks.log_std, None if masks is None else torch.from_numpy(masks),
            features,
        )
        return loss(Outputs(distribution, values), batch)

    def _unrolled(self, sequences: Sequences) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Outputs [N, num_outputs], values [N], features [N, F] of the valid rows; gradients flow back through time."""
        module = self._networks.module
        length, count = sequences.first.shape
        rows = sequences.observations.reshape(length * count, -1)
        encoded = module.encode(self._networks.observations(rows)).view(length, count, -1)
        memory, keep = torch.from_numpy(sequences.memory), torch.from_numpy(~sequences.first).float().unsqueeze(2)
        features = []
        for t in range(length):
            feature, memory = module.recur(encoded[t], memory * keep[t])
            features.append(feature)
        seen = torch.stack(features)[torch.from_numpy(sequences.valid)]
        return *module.read(seen), seen

    def _backward(self, scalar: torch.Tensor) -> None:
        self.gradient[...] = np.float32(0)
        scalar.backward()  # type: ignore[no-untyped-call]
