"""Environments that misbehave or keep hidden state, registered on import: ``broken_envs:Name-v0``."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space


class Zeros(gymnasium.Env[Any, Any]):
    """Begins at three zeros and counts its steps."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self._steps = 0
        return np.zeros(3, np.float32), {}


class RaisesAtStep(Zeros):
    """Raises at the given step of an episode."""

    def __init__(self, at: int = 5) -> None:
        self._at = at

    def step(self, action: Any) -> Any:
        self._steps += 1
        if self._steps == self._at:
            raise RuntimeError("the motor is on fire")
        return np.zeros(3, np.float32), 1.0, False, False, {}


class Misreports(Zeros):
    """Its third step gives ``observation``: not a number by default, or of a wrong shape."""

    def __init__(self, observation: Any = (0.0, float("nan"), 0.0)) -> None:
        self._observation = observation

    def step(self, action: Any) -> Any:
        self._steps += 1
        observation = self._observation if self._steps == 3 else (0.0, 0.0, 0.0)
        return np.array(observation, np.float32), 1.0, self._steps == 5, False, {}


class Counter(gymnasium.Env[Any, Any]):
    """Observes how many steps the env object has ever made; ends every ``period`` steps. Not snapshotable."""

    observation_space = gymnasium.spaces.Box(0.0, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, period: int = 7, truncate: bool = False) -> None:
        self._period, self._truncate = period, truncate
        self._total = self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self._steps = 0
        return np.array([self._total, 0], np.float32), {}

    def step(self, action: Any) -> Any:
        self._total += 1
        self._steps += 1
        ended = self._steps == self._period
        observation = np.array([self._total, self._steps], np.float32)
        return observation, 1.0, ended and not self._truncate, ended and self._truncate, {}


class CounterVector(VectorEnv[Any, Any, Any]):
    """``Counter`` as a native vector env in any autoreset mode; env i has period ``period + i``."""

    def __init__(
        self, num_envs: int = 1, period: int = 3, truncate: bool = False, mode: str = "NextStep", **_: Any
    ) -> None:
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": AutoresetMode(mode)}
        self._mode = AutoresetMode(mode)
        self.single_observation_space = Counter.observation_space
        self.single_action_space = Counter.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._envs = [Counter(period + i, truncate) for i in range(num_envs)]
        self._done = np.zeros(num_envs, np.bool_)
        self._last = np.zeros((num_envs, 2), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, np.bool_))
        for i in np.flatnonzero(mask):
            self._last[i] = self._envs[i].reset()[0]
        self._done[mask] = False
        return self._last.copy(), {}

    def step(self, actions: Any) -> Any:
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros(self.num_envs, np.bool_), np.zeros(self.num_envs, np.bool_)
        final = np.full(self.num_envs, None, object)
        for i, env in enumerate(self._envs):
            if self._done[i]:
                assert self._mode is AutoresetMode.NEXT_STEP, "stepped after the end"
                self._last[i], self._done[i] = env.reset()[0], False
                continue
            self._last[i], rewards[i], terminated[i], truncated[i], _ = env.step(actions[i])
            if terminated[i] or truncated[i]:
                if self._mode is AutoresetMode.SAME_STEP:
                    final[i] = self._last[i].copy()
                    self._last[i] = env.reset()[0]
                else:
                    self._done[i] = True
        info = {"final_obs": final} if self._mode is AutoresetMode.SAME_STEP else {}
        return self._last.copy(), rewards, terminated, truncated, info


gymnasium.register("RaisesAtStep-v0", entry_point=RaisesAtStep)
gymnasium.register("Misreports-v0", entry_point=Misreports)
gymnasium.register("Counter-v0", entry_point=Counter)
gymnasium.register("CounterVector-v0", entry_point=Counter, vector_entry_point=CounterVector)
