"""Wrappers that a config names, and one of our own.

``wrappers`` in a config is a list of mappings: ``name`` is a class of ``gymnasium.wrappers`` or ``module:Class``; the
other keys are its arguments. The first wrapper is next to the environment.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from .errors import UnknownWrapperError, did_you_mean
from .observations import ACTION_MASK

Wrappers = Sequence[Mapping[str, Any]]


def wrapped(env: gymnasium.Env[Any, Any], wrappers: Wrappers) -> gymnasium.Env[Any, Any]:
    """``env`` in all of them.

    Raises:
        UnknownWrapperError: one cannot be found.
    """
    for wrapper in wrappers:
        arguments = {key: value for key, value in wrapper.items() if key != "name"}
        env = find_wrapper(wrapper["name"])(env, **arguments)
    return env


def find_wrapper(name: str) -> Any:
    """The class called ``name``.

    Raises:
        UnknownWrapperError: there is none.
    """
    module_name, colon, class_name = name.rpartition(":")
    try:
        module = importlib.import_module(module_name if colon else "gymnasium.wrappers")
    except ModuleNotFoundError as error:
        raise UnknownWrapperError(f"wrapper {name!r}: cannot import module {module_name!r} ({error})") from None
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, gymnasium.Wrapper)):
        what = f"{class_name!r} of {module.__name__} is no gymnasium.Wrapper" if found else (
            f"{module.__name__} has no {class_name!r}{did_you_mean(class_name, vars(module))}"
        )
        raise UnknownWrapperError(f"wrapper {name!r}: {what}")
    return found


class ActionMaskFromInfo(gymnasium.Wrapper[Any, Any, Any, Any]):  # type: ignore[misc] # gymnasium is not followed
    """Moves the ``action_mask`` that an environment gives in its info, as Taxi-v4 does, into the observation."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        actions = env.action_space
        size = int(actions.nvec.sum()) if isinstance(actions, spaces.MultiDiscrete) else int(getattr(actions, "n", 0))
        if not size or isinstance(actions, spaces.MultiBinary):
            raise ValueError(f"ActionMaskFromInfo is for Discrete and MultiDiscrete actions, not {actions}")
        self.observation_space = spaces.Dict(
            {"observation": env.observation_space, ACTION_MASK: spaces.MultiBinary(size)}
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """(observation, info); see gymnasium."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._with_mask(observation, info), info

    def step(self, action: Any) -> Any:
        """(observation, reward, terminated, truncated, info); see gymnasium."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._with_mask(observation, info), reward, terminated, truncated, info

    def _with_mask(self, observation: Any, info: dict[str, Any]) -> dict[str, Any]:
        return {"observation": observation, ACTION_MASK: np.asarray(info[ACTION_MASK], np.int8).reshape(-1)}
