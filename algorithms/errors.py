"""Errors a person can act on: shown as they are, without a Python traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RLError(Exception):
    """Root of errors whose message says what is wrong and what to do; the CLI prints only that."""


class UnknownEnvError(RLError):
    """No environment of that id is registered."""


class BadEnvValueError(RLError):
    """An environment gave something that cannot be trained on."""


class UnknownWrapperError(RLError):
    """No wrapper of that name."""


class UnknownAlgorithmError(RLError):
    """No algorithm of that name, or ``module:Class`` does not lead to one."""


class UnsupportedSpaceError(RLError):
    """An observation or action space that no policy here can work with."""


class UnfitConfigError(RLError):
    """A config's value does not go with the environment or with another value."""


class TrainingDivergedError(RLError):
    """The weights are no longer finite numbers."""


class StateError(RLError):
    """A saved state does not fit the algorithm that should load it."""


class EnvStepError(RLError):
    """An environment raised in ``make``, ``reset`` or ``step``.

    Attributes:
        env: the environment's id.
        operation: ``"make"``, ``"reset"`` or ``"step"``.
        worker: the worker process it ran in.
        env_index: which of the run's environments; ``None`` when a vector env steps all its copies at once.
        seed: what the environment was last explicitly seeded with.
        action: the action it was given (text), ``None`` outside ``step``.
        trace: the traceback inside the environment, as text.
    """

    def __init__(
        self, env: str, operation: str, worker: str, env_index: int | None, seed: int | None,
        action: str | None, trace: str,
    ) -> None:
        super().__init__(env, operation, worker, env_index, seed, action, trace)  # args, for pickling
        self.env = env
        self.operation = operation
        self.worker = worker
        self.env_index = env_index
        self.seed = seed
        self.action = action
        self.trace = trace

    def __str__(self) -> str:
        which = "one env of a vector env" if self.env_index is None else f"env {self.env_index}"
        action = "" if self.action is None else f", last action {self.action}"
        return (
            f"{self.env} raised in {self.operation}(): {which} on {self.worker}, seed {self.seed}{action}\n"
            f"{self.trace.rstrip()}"
        )


def did_you_mean(name: str, known: Iterable[str], count: int = 3) -> str:
    """``"; did you mean 'CartPole-v1'?"``, or an empty string when nothing is near."""
    lowered: dict[str, str] = {}
    for candidate in known:
        lowered.setdefault(candidate.lower(), candidate)
    near = difflib.get_close_matches(name.lower(), lowered, n=count, cutoff=0.5)
    if not near:
        return ""
    return "; did you mean " + " or ".join(repr(lowered[match]) for match in near) + "?"
