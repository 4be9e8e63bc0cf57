"""Policies whose networks are torch modules: convolutional, recurrent, or of your own.

Their parameters are one flat vector all the same, of which the module's are views: rollouts get it as an array, and the
learner's optimiser moves it in one go. Importing this module does not import torch; the first network made does. On the
processor torch keeps to one thread, so that the same numbers come out wherever a rollout is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import gymnasium
import numpy as np
from numpy.typing import NDArray

from ..observations import ObservationLayout
from .actor_critic import MlpActorCritic, act, check_mask, exploring_head
from .heads import Head, StateDependentGaussian, forbid, head_for
from .mlp import Activation, Floats

if TYPE_CHECKING:
    from ..learner import Learner

Kind = Literal["mlp", "nature", "impala"]
Build = Callable[[ObservationLayout, int], Any]
"""(layout of observations, num_outputs) → an ``nn.Module`` as ``torch_networks.Network`` describes it."""

NATURE_SMALLEST = 36
"""Pixels to a side that the Nature network's three convolutions need."""


@dataclass(frozen=True)
class NetworkSpec:
    """One of rlflow's own networks; calling it makes it."""

    kind: Kind
    hidden: tuple[int, ...] = (64, 64)
    """Layers of ``mlp``."""
    activation: Activation = "tanh"
    """Of ``mlp``."""
    lstm_size: int = 0
    orthogonal: bool = True

    def __call__(self, layout: ObservationLayout, num_outputs: int) -> Any:
        from .torch_networks import SharedNetwork

        return SharedNetwork(self, layout, num_outputs)


class TorchActorCritic:
    """The shape of a policy; holds no parameters, travels to workers.

    Args:
        observation_space: of one environment.
        action_space: of one environment.
        build: makes the network; a class or function of an importable module, or a :class:`NetworkSpec`.
        log_std_init: where log standard deviations start (heads of Box actions).
        sde_sample_freq: for state-dependent exploration, see :class:`StateDependentGaussian`; ``None``: without.

    Raises:
        UnsupportedSpaceError: a space this policy cannot work with.
    """

    def __init__(
        self, observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any], build: Build, *,
        log_std_init: float = 0.0, sde_sample_freq: int | None = None,
    ) -> None:
        self.layout = ObservationLayout(observation_space)
        if sde_sample_freq is None:
            self.head: Head = head_for(action_space)
        else:
            features = build(self.layout, 1).feature_size
            self.head = exploring_head(action_space, features, sde_sample_freq)
        check_mask(self.layout, self.head, action_space)
        self.build = build
        self.log_std_init = log_std_init

    @property
    def memory_size(self) -> int:
        """M, how many numbers are remembered for an environment; the network is made to find out."""
        return TorchNetworks(self).memory_size

    def initial_parameters(self, rng: np.random.Generator) -> Floats:
        """[num_parameters]: the network's own first weights, drawn by ``rng``."""
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**63)))
            module = TorchNetworks(self)
        with torch.no_grad():
            flat = torch.cat([parameter.reshape(-1) for parameter in module.parameters])
        return flat.numpy()

    def bind(self, weights: Floats) -> BoundTorchActorCritic:
        """With parameters [num_parameters]."""
        return BoundTorchActorCritic(self, weights)

    def learner(self, weights: Floats, device: str = "cpu") -> Learner:
        """That trains a copy of parameters [num_parameters]."""
        from ..module_learner import DeviceLearner, ModuleLearner

        return ModuleLearner(self, weights) if device == "cpu" else DeviceLearner(self, weights, device)


class TorchNetworks:
    """The module of a policy and what goes with it.

    Attributes:
        module: the network.
        log_std: a parameter, or ``None`` for heads without.
        parameters: all of them, in the order of the flat vector.
        memory_size: M, how many numbers the network remembers; 0: it does not.
    """

    def __init__(self, policy: TorchActorCritic | MlpActorCritic) -> None:
        import torch

        torch.set_num_threads(1)
        self._device: Any = "cpu"
        self.policy = policy
        self.module = policy.build(policy.layout, policy.head.num_outputs)
        if any(True for _ in self.module.buffers()):
            raise TypeError(
                f"{type(self.module).__name__} has buffers, such as BatchNorm's statistics; a policy's state is its "
                "parameters alone: use LayerNorm, say"
            )
        shape = policy.head.log_std_shape
        self.log_std = None if shape is None else torch.nn.Parameter(torch.full(shape, policy.log_std_init))
        self.parameters = [*self.module.parameters()] + ([] if self.log_std is None else [self.log_std])
        self._explores = isinstance(policy.head, StateDependentGaussian)
        self.memory_size: int = getattr(self.module, "memory_size", 0)

    def use(self, flat: Any, gradient: Any = None) -> None:
        """Makes the parameters, and their gradients, views of [num_parameters]: arrays, or tensors on a device."""
        import torch

        values, gradients = torch.as_tensor(flat), None if gradient is None else torch.as_tensor(gradient)
        self._device = values.device
        at = 0
        for parameter in self.parameters:
            end = at + parameter.numel()
            parameter.data = values[at:end].view(parameter.shape)
            if gradients is None:
                parameter.requires_grad_(False)
            else:
                parameter.grad = gradients[at:end].view(parameter.shape)
            at = end
        if at != len(flat):
            raise ValueError(f"{len(flat)} parameters for a network that has {at}")

    def __call__(self, observations: Any, memory: Any = None) -> tuple[Any, Any, Any, Any]:
        """Of tensors: outputs [N, num_outputs], values [N], features [N, F] if the head needs them, memory [N, M]."""
        if memory is None and not self._explores:  # any module has this much
            return *self.module(observations), None, None
        features = self.module.encode(observations)
        if memory is not None:
            features, memory = self.module.recur(features, memory)
        return *self.module.read(features), features, memory

    def tensor(self, values: Any) -> Any:
        """Where the parameters are; of an array that is on the processor the same memory, unless it is read-only."""
        import torch

        if isinstance(values, np.ndarray):
            values = torch.from_numpy(values if values.flags.writeable else values.copy())
        return values.to(self._device)

    def observations(self, rows: Any) -> Any:
        """[N, O], an array or a tensor → what the module is given: images in [0, 1], numbers as they are."""
        tensor, parts = self.tensor(rows), {}
        for part in self.policy.layout.parts:
            values = tensor[:, part.start:part.start + part.size].float()
            parts[part.name] = values if part.image is None else values.view(-1, *part.image) / 255
        return parts.get("", parts)


class BoundTorchActorCritic:
    """A :class:`TorchActorCritic` with parameters, in a rollout or an episode; gradients are not kept."""

    def __init__(self, shape: TorchActorCritic, parameters: Floats) -> None:
        self.head = shape.head
        self._layout = shape.layout
        self._networks = TorchNetworks(shape)
        self._networks.use(np.array(parameters, np.float32))
        self._networks.module.eval()
        log_std = self._networks.log_std
        self.log_std: Floats | None = None if log_std is None else log_std.numpy()
        self._memory: Floats | None = None

    def initial_memory(self, count: int) -> Floats | None:
        """[count, M] zeros; ``None`` if nothing is remembered."""
        size = self._networks.memory_size
        return np.zeros((count, size), np.float32) if size else None

    def step(self, observations: NDArray[Any], memory: Floats | None) -> tuple[Floats, Floats, Floats | None]:
        """See :class:`BoundPolicy`."""
        outputs, values, memory = self._forward(observations, memory)
        if self.head.row_size > self.head.num_outputs:
            return outputs, values, memory
        masks = self._layout.masks(observations)
        return outputs if masks is None else forbid(outputs, masks), values, memory

    def values(self, observations: NDArray[Any], memory: Floats | None = None) -> Floats:
        """V: [N, O], [N, M] → [N]."""
        return self._forward(observations, memory)[1]

    def act(self, observations: NDArray[Any], random: np.random.Generator | None) -> Any:
        """See :class:`BoundPolicy`."""
        if self._memory is None:
            self._memory = self.initial_memory(len(observations))
        rows, _, self._memory = self.step(observations, self._memory)
        return act(self.head, rows, self.log_std, random)

    def _forward(self, rows: NDArray[Any], memory: Floats | None) -> tuple[Floats, Floats, Floats | None]:
        import torch

        with torch.inference_mode():
            observations = self._networks.observations(rows)
            outputs, values, features, after = self._networks(
                observations, None if memory is None else torch.from_numpy(memory)
            )
            if self.head.row_size > self.head.num_outputs:
                outputs = torch.cat([outputs, features], 1)
            return outputs.numpy(), values.numpy(), None if after is None else after.numpy()


def network_for(layout: ObservationLayout) -> Kind:
    """What suits the observations: convolutions for images, the Nature network's if these are large enough."""
    images = [part.image for part in layout.parts if part.image]
    if not images:
        return "mlp"
    return "nature" if min(min(image[1:]) for image in images) >= NATURE_SMALLEST else "impala"
