"""What rollouts, learners and evaluation ask of a policy.

A policy here is a shape: it holds no parameters, is made from two spaces, and travels to workers. Its parameters are
one flat float32 vector, whatever computes with them, so that messages, checkpoints, optimisers and parameter servers
know nothing of layers. ``MlpActorCritic`` (NumPy) and ``TorchActorCritic`` (torch) are such policies; a policy of
your own is usually a :class:`TorchActorCritic` around a network of your own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..observations import ObservationLayout
from .heads import Head
from .mlp import Floats

if TYPE_CHECKING:  # which imports torch
    from ..learner import Learner


class BoundPolicy(Protocol):
    """A policy with its parameters."""

    @property
    def head(self) -> Head: ...

    @property
    def log_std(self) -> Floats | None:
        """The head's free parameters, if it has any."""

    def initial_memory(self, count: int) -> Floats | None:
        """[count, M], what a recurrent policy remembers at an episode's first step: zeros; ``None`` for others."""

    def step(
        self, observations: NDArray[Any], memory: Floats | None
    ) -> tuple[Floats, Floats | None, Floats | None]:
        """One step of a rollout.

        Args:
            observations: [B, O].
            memory: [B, M], or ``None``.

        Returns:
            the head's rows [B, row_size], perhaps in a buffer that the next call overwrites; values [B], or ``None``
            where they are cheaper in one batch after the rollout; memory [B, M].
        """

    def values(self, observations: NDArray[Any], memory: Floats | None) -> Floats:
        """V: [N, O], [N, M] → [N]."""

    def act(self, observations: NDArray[Any], random: np.random.Generator | None) -> Any:
        """[N, O] → N actions for the environment: the most likely ones, or drawn with ``random``.

        A recurrent policy remembers from call to call; bind it anew for other episodes.
        """


class Policy(Protocol):
    """A policy and a value function without their parameters."""

    @property
    def layout(self) -> ObservationLayout: ...

    @property
    def head(self) -> Head: ...

    @property
    def memory_size(self) -> int:
        """M, how many numbers a recurrent policy remembers for an environment; 0 for others."""

    def initial_parameters(self, rng: np.random.Generator) -> Floats:
        """[num_parameters]"""

    def bind(self, weights: Floats) -> BoundPolicy:
        """With parameters [num_parameters]."""

    def learner(self, weights: Floats, device: str = "cpu") -> Learner:
        """That trains a copy of parameters [num_parameters], on a device as torch names it: ``"cuda"``."""
