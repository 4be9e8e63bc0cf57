"""Environments: found by id, made in vectors, stepped with one meaning whatever the autoreset mode."""

from __future__ import annotations

import importlib
import importlib.util
import os
import traceback
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from numpy.typing import NDArray

import rlflow.engine as engine

from .config import WRAPPERS
from .errors import BadEnvValueError, EnvStepError, UnknownEnvError, UnknownWrapperError, did_you_mean
from .observations import ObservationLayout
from .wrappers import wrapped

Rows = NDArray[Any]
Bools = NDArray[np.bool_]


def check_env(env_id: str, env_kwargs: Mapping[str, Any] | None = None) -> EnvSpec:
    """The registered spec of ``env_id`` (``Env-v0`` or ``module:Env-v0``).

    Args:
        env_id: what a config's ``env`` says.
        env_kwargs: when given, the environment is made once with them, and closed; wrappers under :data:`WRAPPERS`.

    Raises:
        UnknownEnvError: not registered (with the nearest ids), or its module cannot be imported.
        UnknownWrapperError: a wrapper is not there.
        EnvStepError: it could not be made with ``env_kwargs``.
    """
    spec = _find_spec(env_id)
    if env_kwargs and env_kwargs.get(WRAPPERS) and spec.vector_entry_point is not None:
        warnings.warn(
            f"{env_id} steps all its copies at once, which its wrappers cannot: it will be stepped one by one, and "
            "slower", stacklevel=2,
        )
    if env_kwargs:
        VectorStepper(env_id, env_kwargs, 1).close()
    return spec


def _find_spec(env_id: str) -> EnvSpec:
    module, colon, name = env_id.rpartition(":")
    if not colon and name.startswith("ALE/"):
        if importlib.util.find_spec("ale_py") is None:
            raise UnknownEnvError(f"env {env_id!r} is one of ale-py's, which is not installed: pip install ale-py")
        module = "ale_py"
    if module:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise UnknownEnvError(f"env {env_id!r}: cannot import module {module!r} ({error})") from None
    try:
        return gymnasium.spec(name)
    except gymnasium.error.Error as error:
        hint = did_you_mean(name, gymnasium.registry)
        detail = "" if isinstance(error, gymnasium.error.NameNotFound) else f" ({error})"
        raise UnknownEnvError(f"unknown env {env_id!r}{hint or detail}") from None


def worker_name() -> str:
    """This process, in words, for error messages."""
    if not engine.is_initialized():
        return f"pid {os.getpid()}"
    return f"worker {engine.get_runtime_context().worker_id} (pid {os.getpid()})"


class Located(gymnasium.Wrapper[Any, Any, Any, Any]):  # type: ignore[misc] # gymnasium is not followed
    """Says which environment raised, with which seed and action; changes nothing else."""

    def __init__(self, env: gymnasium.Env[Any, Any], env_id: str, index: int) -> None:
        super().__init__(env)
        self._env_id = env_id
        self.index = index
        self.seed: int | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """(observation, info); see gymnasium."""
        try:
            return self.env.reset(seed=seed, options=options)
        except Exception as error:
            raise _env_error(error, self._env_id, "reset", self.index, self.seed, None) from error

    def step(self, action: Any) -> Any:
        """(observation, reward, terminated, truncated, info); see gymnasium."""
        try:
            return self.env.step(action)
        except Exception as error:
            raise _env_error(error, self._env_id, "step", self.index, self.seed, action) from error


def _env_error(
    error: Exception, env_id: str, operation: str, index: int | None, seed: int | None, action: Any
) -> EnvStepError:
    if isinstance(error, EnvStepError):
        return error
    text = None if action is None else np.array2string(np.asarray(action), threshold=64)
    return EnvStepError(env_id, operation, worker_name(), index, seed, text, traceback.format_exc())


def _make_vector(
    env_id: str, env_kwargs: Mapping[str, Any], num_envs: int, first_index: int
) -> VectorEnv[Any, Any, Any]:
    spec = _find_spec(env_id)
    keywords = {key: value for key, value in env_kwargs.items() if key != WRAPPERS}
    wrappers = env_kwargs.get(WRAPPERS, ())
    if spec.vector_entry_point is not None and not spec.additional_wrappers and not wrappers:
        return gymnasium.make_vec(env_id, num_envs, vectorization_mode="vector_entry_point", **keywords)

    def make(index: int) -> gymnasium.Env[Any, Any]:
        env = gymnasium.make(env_id, disable_env_checker=True, **keywords)
        return Located(wrapped(env, wrappers), env_id, first_index + index)

    makers = [partial(make, index) for index in range(num_envs)]
    return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)


class VectorStepper:
    """A vector environment whose steps mean the same in every autoreset mode, with rows for observations.

    Args:
        env_id, env_kwargs: what to make.
        num_envs: B.
        first_index: number of the first of its environments within the run, for error messages.

    Raises:
        EnvStepError: making, resetting or stepping it raised.
        UnknownEnvError, UnknownWrapperError: no such id or name.
    """

    def __init__(
        self, env_id: str, env_kwargs: Mapping[str, Any], num_envs: int, first_index: int = 0
    ) -> None:
        self.env_id = env_id
        self.num_envs = num_envs
        self.first_index = first_index
        self._info: dict[str, Any] = {}
        self.seed: int | None = None
        try:
            self.env = _make_vector(env_id, env_kwargs, num_envs, first_index)
        except (UnknownEnvError, UnknownWrapperError):
            raise
        except Exception as error:
            raise _env_error(error, env_id, "make", None, None, None) from error
        self.layout = ObservationLayout(self.env.single_observation_space)
        mode = AutoresetMode(self.env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        self.next_step_resets = mode is AutoresetMode.NEXT_STEP
        """After a done step the next one ignores the action and resets: its row is no transition."""
        self._reset_by_hand = mode is AutoresetMode.DISABLED

    def reset(self, seeds: list[int]) -> Rows:
        """Resets the environments from B ``seeds`` (a native vector env uses the first only) → [B, O]."""
        self.remember(seeds)
        argument: Any = seeds if isinstance(self.env, SyncVectorEnv) else seeds[0]
        if type(self.env).__module__.startswith("ale_py"):  # which counts up from it in 31 bits
            argument = seeds[0] // 4
        try:
            observations, _ = self.env.reset(seed=argument)
        except Exception as error:
            raise _env_error(error, self.env_id, "reset", None, self.seed, None) from error
        return self._rows(observations)

    def remember(self, seeds: list[int]) -> None:
        """Names these seeds in errors; for environments whose state was restored instead of reset."""
        self.seed = seeds[0]
        if isinstance(self.env, SyncVectorEnv):
            for env, seed in zip(self.env.envs, seeds, strict=True):
                env.seed = seed

    def step(self, actions: NDArray[Any]) -> tuple[Rows, NDArray[Any], Bools, Bools, Rows | None]:
        """One step of all environments.

        Returns:
            observations [B, O] to act in next; rewards [B]; terminated [B]; truncated [B]; and the final
            observations [B, O], of which only rows of done environments matter: ``None`` when none is
            done, and always when ``next_step_resets``, because ``observations`` holds them then.
        """
        try:
            stepped, rewards, terminated, truncated, info = self.env.step(actions)
            self._info = info
            observations = self._rows(stepped)
            if self.next_step_resets:
                return observations, rewards, terminated, truncated, None
            done = terminated | truncated
            if not done.any():
                return observations, rewards, terminated, truncated, None
            final = observations.copy()
            if self._reset_by_hand:
                reset, _ = self.env.reset(options={"reset_mask": done})
                observations = self._rows(reset)
            else:
                for i in np.flatnonzero(done):
                    final[i] = self.layout.encode(info["final_obs"][i], 1)
            return observations, rewards, terminated, truncated, final
        except EnvStepError:
            raise
        except Exception as error:
            raise _env_error(error, self.env_id, "step", None, self.seed, actions) from error

    def step_some(
        self, actions: NDArray[Any], which: Bools, observations: Rows
    ) -> tuple[Rows, NDArray[np.float64], Bools]:
        """One step of some environments, of a vector that steps them one by one; none is reset.

        Args:
            which: [B].
            observations: [B, O], returned for the others.

        Returns:
            observations [B, O], rewards [B], done [B].
        """
        assert isinstance(self.env, SyncVectorEnv)
        observations = observations.copy()
        rewards, done = np.zeros(self.num_envs), np.zeros(self.num_envs, np.bool_)
        envs = self.env.envs
        for i in np.flatnonzero(which).tolist():
            try:
                observation, rewards[i], terminated, truncated, _ = envs[i].step(actions[i])
                observations[i] = self.layout.encode(observation, 1)
            except Exception as error:
                raise _env_error(error, self.env_id, "step", i, envs[i].seed, actions[i]) from error
            done[i] = terminated or truncated
        return observations, rewards, done

    def episode_info(self, names: Sequence[str], done: Bools) -> dict[str, list[float]]:
        """Of the environments that are ``done`` [B], what the last step's info says, by name, in their order.

        Raises:
            BadEnvValueError: it says nothing of that name, or no number.
        """
        info = self._info.get("final_info", self._info)
        found: dict[str, list[float]] = {}
        for name in names:
            there = info.get(f"_{name}", np.ones(self.num_envs, np.bool_))
            if name not in info or not np.asarray(there)[done].all():
                known = ", ".join(sorted(key for key in info if not key.startswith("_"))) or "nothing"
                raise BadEnvValueError(
                    f"episode_info: {self.env_id} has no {name!r} in its info when an episode ends; it has {known}"
                )
            try:
                found[name] = [float(value) for value in np.asarray(info[name])[done]]
            except (TypeError, ValueError):
                raise BadEnvValueError(f"episode_info: {name!r} of {self.env_id} is no number") from None
        return found

    def check_finite(self, observations: Rows, rewards: NDArray[Any]) -> None:
        """Of T steps: observations [T + 1, B, O], rewards [T, B].

        Raises:
            BadEnvValueError: one is infinite or not a number; the message says whose, and when.
        """
        for what, values in (("observation", observations), ("reward", rewards)):
            if values.dtype == np.uint8 or np.isfinite(values).all():
                continue
            step, index, *column = np.argwhere(~np.isfinite(values))[0].tolist()
            at = f" (number {column[0]} of its row)" if column else ""
            seed = self.env.envs[index].seed if isinstance(self.env, SyncVectorEnv) else self.seed
            raise BadEnvValueError(
                f"{self.env_id} gave the {what} {values[(step, index, *column)]}{at}, which is not finite: env "
                f"{self.first_index + index} on {worker_name()}, seed {seed}, step {step} of the rollout"
            )

    def close(self) -> None:
        self.env.close()

    def _rows(self, observations: Any) -> Rows:
        return self.layout.encode(observations, self.num_envs)


def spaces_of(
    env_id: str, env_kwargs: Mapping[str, Any]
) -> tuple[gymnasium.Space[Any], gymnasium.Space[Any]]:
    """(observation space, action space) of one environment."""
    stepper = VectorStepper(env_id, env_kwargs, 1)
    try:
        return stepper.env.single_observation_space, stepper.env.single_action_space
    finally:
        stepper.close()
