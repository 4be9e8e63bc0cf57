"""Small environments with every kind of space, registered on import: ``toy_envs:Name-v0``."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

CAMERA = spaces.Box(0, 255, (12, 10, 3), np.uint8)


class Spaces(gymnasium.Env[Any, Any]):
    """Any two spaces, given by name; observations are samples. Episodes have eight steps."""

    OBSERVATIONS: ClassVar[dict[str, spaces.Space[Any]]] = {
        "box": spaces.Box(-1, 1, (2, 3), np.float32),
        "discrete": spaces.Discrete(4, start=2),
        "multi_discrete": spaces.MultiDiscrete([2, 3]),
        "multi_binary": spaces.MultiBinary((2, 2)),
        "dict": spaces.Dict({"z": spaces.Discrete(3), "a": spaces.Box(-1, 1, (2,), np.float64)}),
        "tuple": spaces.Tuple((spaces.Discrete(2), spaces.Dict({"x": spaces.Box(0, 1, (1,), np.float32)}))),
        "image": CAMERA,
        "image_first": spaces.Box(0, 255, (4, 12, 10), np.uint8),
        "camera_and_more": spaces.Dict({"camera": CAMERA, "speed": spaces.Box(-1, 1, (2,), np.float32)}),
        "camera_and_bits": spaces.Dict({"camera": CAMERA, "bits": spaces.MultiBinary(3)}),
    }
    ACTIONS: ClassVar[dict[str, spaces.Space[Any]]] = {
        "discrete": spaces.Discrete(3, start=1),
        "multi_discrete": spaces.MultiDiscrete([2, 4]),
        "multi_binary": spaces.MultiBinary(3),
        "box": spaces.Box(-1, 1, (2,), np.float32),
    }

    def __init__(self, observation: str = "box", action: str = "discrete") -> None:
        self.observation_space = self.OBSERVATIONS[observation]
        self.action_space = self.ACTIONS[action]
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self._steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        self._steps += 1
        reward = float(np.sum(action))
        return self.observation_space.sample(), reward, False, self._steps == 8, {}


class Spot(gymnasium.Env[Any, Any]):
    """An image with a bright quarter; a reward for naming it. Episodes have eight steps."""

    observation_space = spaces.Box(0, 255, (8, 8, 1), np.uint8)
    action_space = spaces.Discrete(4)

    def _observe(self) -> Any:
        self._quarter = int(self.np_random.integers(4))
        image = np.zeros((8, 8, 1), np.uint8)
        row, column = divmod(self._quarter, 2)
        image[4 * row:4 * row + 4, 4 * column:4 * column + 4] = 255
        self._steps += 1
        return image

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self._steps = 0
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        reward = float(action == self._quarter)
        return self._observe(), reward, self._steps > 8, False, {}


class Recall(gymnasium.Env[Any, Any]):
    """Shows one of two cues in the first step only; the action of the last step, the fourth, should be its number."""

    observation_space = spaces.Discrete(3)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self._cue, self._steps = int(self.np_random.integers(2)), 0
        return self._cue, {}

    def step(self, action: Any) -> Any:
        self._steps += 1
        ended = self._steps == 4
        return 2, float(ended and action == self._cue), ended, False, {}


class Masked(gymnasium.Env[Any, Any]):
    """Allows some actions in each step, at least one; anything else is an error."""

    def __init__(self, multi: bool = False, in_info: bool = False) -> None:
        self._sizes = [3, 2] if multi else [4]
        self.action_space = spaces.MultiDiscrete(self._sizes) if multi else spaces.Discrete(4)
        self._seen = spaces.Box(-1, 1, (2,), np.float32)
        self._in_info = in_info
        self.observation_space: spaces.Space[Any] = self._seen if in_info else spaces.Dict(
            {"observation": self._seen, "action_mask": spaces.MultiBinary(sum(self._sizes))}
        )
        self._steps = 0

    def _observe(self) -> Any:
        masks = [self.np_random.integers(0, 2, size) for size in self._sizes]
        for mask in masks:
            mask[self.np_random.integers(len(mask))] = 1
        self._masks = masks
        self._steps += 1
        mask = np.concatenate(masks).astype(np.int8)
        seen = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return (seen, {"action_mask": mask}) if self._in_info else ({"observation": seen, "action_mask": mask}, {})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self._steps = 0
        return self._observe()

    def step(self, action: Any) -> Any:
        for mask, choice in zip(self._masks, np.atleast_1d(action), strict=True):
            assert mask[choice], f"action {action} is forbidden by {self._masks}"
        observation, info = self._observe()
        return observation, float(np.sum(action)), self._steps > 12, False, info


gymnasium.register("Spaces-v0", entry_point=Spaces)
gymnasium.register("Masked-v0", entry_point=Masked)
gymnasium.register("Spot-v0", entry_point=Spot)
gymnasium.register("Recall-v0", entry_point=Recall)
