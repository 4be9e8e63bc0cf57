"""Parameters in shards, each with its part of the optimiser in an actor of its own.

One caller applies all gradients, in one order, and calls of one caller keep theirs. So what the n-th gradient returns
is version n on every shard, and no lock and no number has to travel. A shard that dies comes back from its
last checkpoint and is not replayed: a few gradients are lost, which the next ones make up for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

import rlflow.engine as engine

from .adam import Adam
from .errors import StateError
from .policies.mlp import Floats
from .rmsprop import RmsProp

Optimizer = Literal["rmsprop", "adam"]
CHECKPOINT_EVERY = 20
"""Gradients: as many are lost at most when a shard dies. A checkpoint costs about as much as five of them."""


class Shard:
    """An actor: one slice of the parameters, [P]."""

    def __init__(self, optimizer: Optimizer, parameters: Floats) -> None:
        self._parameters = np.array(parameters)
        self._optimizer = Adam(len(parameters)) if optimizer == "adam" else RmsProp(len(parameters))

    def apply(self, gradient: Floats, learning_rate: float) -> Floats:
        """[P] → the parameters [P] that come of it: one call a gradient, where reading them apart would be a second."""
        self._optimizer.step(self._parameters, gradient, learning_rate)
        return self.parameters()

    def parameters(self) -> Floats:
        return self._parameters.copy()

    def save_checkpoint(self) -> dict[str, Any]:
        return {"parameters": self._parameters.copy(), "optimizer": self._optimizer.state()}

    def load_checkpoint(self, state: dict[str, Any]) -> None:
        self._parameters[...] = state["parameters"]
        self._optimizer.load_state(state["optimizer"])


class ParameterServer:
    """The caller's side."""

    def __init__(self, parameters: Floats, shards: int, optimizer: Optimizer) -> None:
        cls = engine.remote(
            max_restarts=-1, max_task_retries=-1, checkpoint_every=CHECKPOINT_EVERY, replay=False
        )(Shard)
        self._size, self._optimizer = len(parameters), optimizer
        self._shards = [cls.remote(optimizer, part) for part in np.array_split(parameters, shards)]
        self.version = 0
        """Gradients applied so far."""
        self.parameters: list[engine.ObjectRef] = [shard.parameters.remote() for shard in self._shards]
        """The slices of this version, in order."""

    def apply(self, slices: Sequence[engine.ObjectRef], learning_rate: float) -> None:
        """One gradient, in as many slices as there are shards."""
        self.parameters = [
            shard.apply.remote(gradient, learning_rate) for shard, gradient in zip(self._shards, slices, strict=True)
        ]
        self.version += 1

    def state(self) -> dict[str, Any]:
        shards = engine.get([shard.save_checkpoint.remote() for shard in self._shards])
        return {"version": self.version, "shards": shards}

    def load_state(self, state: dict[str, Any]) -> None:
        """Raises StateError when it is of other parameters, or of another optimiser."""
        parts, vectors = state["shards"], {}
        for name in ("square", "mean"):
            if name in parts[0]["optimizer"]:
                vectors[name] = np.concatenate([part["optimizer"][name] for part in parts])
        parameters = np.concatenate([part["parameters"] for part in parts])
        if len(parameters) != self._size or ("mean" in vectors) != (self._optimizer == "adam"):
            raise StateError(
                f"this state has {len(parameters)} parameters and {'adam' if 'mean' in vectors else 'rmsprop'}'s "
                f"moments; this config has {self._size} and {self._optimizer}"
            )
        count = len(self._shards)  # which may be another than it was
        cut = {name: np.array_split(vector, count) for name, vector in vectors.items()}
        engine.get([
            shard.load_checkpoint.remote({
                "parameters": part,
                "optimizer": {**parts[0]["optimizer"], **{name: pieces[i] for name, pieces in cut.items()}},
            })
            for i, (shard, part) in enumerate(zip(self._shards, np.array_split(parameters, count), strict=True))
        ])
        self.version = state["version"]
        self.parameters = [shard.parameters.remote() for shard in self._shards]

    def close(self) -> None:
        for shard in self._shards:
            engine.kill(shard)
        self._shards, self.parameters = [], []
