"""Networks in torch: convolutional ones for images, and an LSTM after any of them.

What the policy and the value head read is shared: an encoder, and behind it the LSTM if there is one. Only
:class:`MlpNetworks` shares nothing: it is what ``mlp`` is in NumPy, for learners on a GPU.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import nn

from ..errors import UnsupportedSpaceError
from ..observations import ObservationLayout
from .mlp import MlpSpec
from .torch_actor_critic import NATURE_SMALLEST, NetworkSpec

Observations = Any
"""[N, C, H, W] in [0, 1] of an image, [N, n] of numbers, or a dict of these by name for a composed space."""


class Network(nn.Module):
    """A policy and a value network in one module.

    ``forward`` is what rollouts and learners call. A network of your own may be any ``nn.Module`` with such a
    ``forward``; a recurrent one, or one for state-dependent exploration, subclasses this and gives the three parts.

    Attributes:
        feature_size: of what :meth:`read` gets.
        memory_size: M, of what is remembered from step to step; 0: nothing.
    """

    feature_size: int
    memory_size: int = 0

    def encode(self, observations: Observations) -> torch.Tensor:
        """N observations → [N, F]."""
        raise NotImplementedError

    def recur(self, encoded: torch.Tensor, memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One step: [N, F], [N, M] → [N, feature_size], [N, M]. Memory is zero at an episode's first step."""
        raise NotImplementedError

    def read(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[N, feature_size] → outputs of the action head [N, num_outputs], values [N]."""
        raise NotImplementedError

    def forward(self, observations: Observations) -> tuple[torch.Tensor, torch.Tensor]:
        """N observations → outputs of the action head [N, num_outputs], values [N]; of networks without memory."""
        return self.read(self.encode(observations))


class SharedNetwork(Network):
    """Encoder, perhaps an LSTM, two linear heads."""

    def __init__(self, spec: NetworkSpec, layout: ObservationLayout, num_outputs: int) -> None:
        super().__init__()
        self.encoder = Encoder(spec, layout)
        self.feature_size = self.encoder.size
        self.lstm: nn.LSTMCell | None = None
        if spec.lstm_size:
            self.lstm = nn.LSTMCell(self.encoder.size, spec.lstm_size)
            self.feature_size, self.memory_size = spec.lstm_size, 2 * spec.lstm_size
        self.policy = nn.Linear(self.feature_size, num_outputs)
        self.value = nn.Linear(self.feature_size, 1)
        if spec.orthogonal:
            _make_orthogonal(self)

    def encode(self, observations: Observations) -> torch.Tensor:
        encoded: torch.Tensor = self.encoder(observations)
        return encoded

    def recur(self, encoded: torch.Tensor, memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Hochreiter & Schmidhuber 1997; memory is (h, c)."""
        assert self.lstm is not None
        hidden, cell = memory.chunk(2, 1)
        hidden, cell = self.lstm(encoded, (hidden, cell))
        return hidden, torch.cat([hidden, cell], 1)

    def read(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.policy(features), self.value(features).squeeze(1)


class MlpNetworks(Network):
    """The two networks of an ``MlpActorCritic``, parameters in its flat vector's order.

    Features are both networks' last hidden layers, the policy's first.
    """

    def __init__(self, policy: MlpSpec, value: MlpSpec) -> None:
        super().__init__()
        self.policy, self.value = Layers(policy), Layers(value)
        self._widths = [policy.sizes[-2], value.sizes[-2]]
        self.feature_size = sum(self._widths)

    def encode(self, observations: Observations) -> torch.Tensor:
        rows = torch.cat([*observations.values()], 1) if isinstance(observations, dict) else observations
        return torch.cat([self.policy.hidden(rows), self.value.hidden(rows)], 1)

    def read(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        policy, value = torch.split(features, self._widths, 1)
        return self.policy.output(policy), self.value.output(value).squeeze(1)


class Layers(nn.Module):
    """An ``Mlp`` of NumPy in torch: weights are [in, out], each layer's before its bias; none is given a value."""

    def __init__(self, spec: MlpSpec) -> None:
        super().__init__()
        self.parts = nn.ParameterList(
            torch.empty(shape) for before, after in pairwise(spec.sizes) for shape in ((before, after), (after,))
        )
        self._activation = torch.tanh if spec.activation == "tanh" else torch.relu

    def hidden(self, inputs: torch.Tensor) -> torch.Tensor:
        """[N, in] → the last hidden layer [N, width]; the inputs if there is none."""
        for layer in range(0, len(self.parts) - 2, 2):
            inputs = self._activation(torch.addmm(self.parts[layer + 1], inputs, self.parts[layer]))
        return inputs

    def output(self, hidden: torch.Tensor) -> torch.Tensor:
        """[N, width] → [N, out]."""
        return torch.addmm(self.parts[-1], hidden, self.parts[-2])


class Encoder(nn.Module):
    """Each image through convolutions of its own; these and all other numbers together through one or more layers."""

    def __init__(self, spec: NetworkSpec, layout: ObservationLayout) -> None:
        super().__init__()
        self.convolutions = nn.ModuleDict()
        inputs = 0
        for part in layout.parts:
            if part.image is None or spec.kind == "mlp":
                inputs += part.size
                continue
            convolution = nature(part.image) if spec.kind == "nature" else impala(part.image[0])
            self.convolutions[_key(part.name)] = convolution
            inputs += convolution(torch.zeros(1, *part.image)).shape[1]
        widths = {"nature": (512,), "impala": (256,), "mlp": spec.hidden}[spec.kind]
        activation = nn.Tanh if spec.kind == "mlp" and spec.activation == "tanh" else nn.ReLU
        layers: list[nn.Module] = []
        for before, after in zip((inputs, *widths), widths, strict=False):
            layers += [nn.Linear(before, after), activation()]
        self.layers = nn.Sequential(*layers)
        self.size = widths[-1] if widths else inputs

    def forward(self, observations: Observations) -> torch.Tensor:
        """N observations → [N, size]."""
        named = observations if isinstance(observations, dict) else {"": observations}
        parts = [
            self.convolutions[_key(name)](part) if _key(name) in self.convolutions else part.flatten(1)
            for name, part in named.items()
        ]
        encoded: torch.Tensor = self.layers(parts[0] if len(parts) == 1 else torch.cat(parts, 1))
        return encoded


def nature(image: tuple[int, int, int]) -> nn.Sequential:
    """Mnih et al. 2015, "Human-level control through deep reinforcement learning": [N, C, H, W] → [N, F]."""
    if min(image[1:]) < NATURE_SMALLEST:
        raise UnsupportedSpaceError(
            f"network: nature needs images of at least {NATURE_SMALLEST} pixels a side, these have "
            f"{image[1]}×{image[2]}; impala takes any"
        )
    return nn.Sequential(
        nn.Conv2d(image[0], 32, 8, 4), nn.ReLU(),
        nn.Conv2d(32, 64, 4, 2), nn.ReLU(),
        nn.Conv2d(64, 64, 3, 1), nn.ReLU(),
        nn.Flatten(),
    )


def impala(channels: int) -> nn.Sequential:
    """Espeholt et al. 2018 (arXiv:1802.01561), the deep network of figure 3: [N, C, H, W] → [N, F]."""
    layers: list[nn.Module] = []
    for width in (16, 32, 32):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.MaxPool2d(3, 2, 1), Residual(width), Residual(width)]
        channels = width
    return nn.Sequential(*layers, nn.ReLU(), nn.Flatten())


class Residual(nn.Module):
    """x + conv(relu(conv(relu(x))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """[N, width, H, W] → the same shape."""
        changed: torch.Tensor = self.second(self.first(inputs.relu()).relu())
        return inputs + changed


def _key(name: str) -> str:
    """A module's name may not have dots in it, and may not be empty."""
    return name.replace(".", "/") or "/"


def _make_orthogonal(network: SharedNetwork) -> None:
    """The gains PPO implementations agree on (Huang et al. 2022, "The 37 implementation details of PPO")."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            gain = 0.01 if module is network.policy else 1.0 if module is network.value else 2.0**0.5
            nn.init.orthogonal_(module.weight, gain)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type] # all of ours have one
        elif isinstance(module, nn.LSTMCell):
            for name, parameter in module.named_parameters():
                if name.startswith("weight"):
                    nn.init.orthogonal_(parameter)
                else:
                    nn.init.zeros_(parameter)
