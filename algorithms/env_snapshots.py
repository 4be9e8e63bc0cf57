"""The complete state of a vector environment as arrays, for environments where that is known to be faithful.

Faithful means: a restored environment continues with the same observations, rewards and flags, bit for
bit, resets included. The tests hold every class of :data:`STATE_ATTRIBUTES` to that. For any other class or
wrapper :func:`take` gives ``None``: deep-copying or pickling an unknown environment can lose state silently.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import SyncVectorEnv, VectorEnv
from gymnasium.wrappers import OrderEnforcing, TimeLimit
from numpy.typing import NDArray

from .envs import Located

Snapshot = dict[str, NDArray[Any]]

_CLASSIC = "gymnasium.envs.classic_control"
STATE_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    f"{_CLASSIC}.cartpole.CartPoleVectorEnv": ("state", "steps", "prev_done"),
    f"{_CLASSIC}.cartpole.CartPoleEnv": ("state", "steps_beyond_terminated"),
    f"{_CLASSIC}.pendulum.PendulumEnv": ("state",),
    f"{_CLASSIC}.mountain_car.MountainCarEnv": ("state",),
    f"{_CLASSIC}.continuous_mountain_car.Continuous_MountainCarEnv": ("state",),
    f"{_CLASSIC}.acrobot.AcrobotEnv": ("state",),
}
"""Class → the attributes that, with ``np_random``, are all of its state: numbers, arrays or ``None``."""


def take(env: VectorEnv[Any, Any, Any]) -> Snapshot | None:
    """Copies of all that the future of ``env`` depends on; ``None`` where that is not known for sure."""
    if not isinstance(env, SyncVectorEnv):
        return _take_one(env, "", 0)
    snapshot: Snapshot = {}
    for index, single in enumerate(env.envs):
        core, steps = _unwrap(single)
        part = None if core is None else _take_one(core, f"{index}.", steps)
        if part is None:
            return None
        snapshot.update(part)
    return snapshot


def restore(env: VectorEnv[Any, Any, Any], snapshot: Snapshot) -> None:
    """Makes ``env``, made with the same arguments as the snapshot's, continue from there."""
    if not isinstance(env, SyncVectorEnv):
        _restore_one(env, "", snapshot)
        return
    for index, single in enumerate(env.envs):
        core, _ = _unwrap(single)
        assert core is not None, "a snapshot of an environment that cannot be taken one of"
        _restore_one(core, f"{index}.", snapshot)
        _restore_wrappers(single, int(snapshot[f"{index}.elapsed"]))


def _unwrap(env: gymnasium.Env[Any, Any]) -> tuple[gymnasium.Env[Any, Any] | None, int]:
    """The innermost environment and the steps its TimeLimit counted; ``None`` behind unknown wrappers."""
    elapsed = 0
    while isinstance(env, gymnasium.Wrapper):
        if type(env) is TimeLimit:
            elapsed = int(env._elapsed_steps or 0)
        elif type(env) not in (OrderEnforcing, Located):
            return None, 0
        env = env.env
    return env, elapsed


def _restore_wrappers(env: gymnasium.Env[Any, Any], elapsed: int) -> None:
    while isinstance(env, gymnasium.Wrapper):
        if type(env) is TimeLimit:
            env._elapsed_steps = elapsed
        elif type(env) is OrderEnforcing:
            env._has_reset = True
        env = env.env


def _take_one(core: Any, prefix: str, elapsed: int) -> Snapshot | None:
    attributes = STATE_ATTRIBUTES.get(f"{type(core).__module__}.{type(core).__qualname__}")
    random = core._np_random
    if attributes is None or random is None or type(random.bit_generator) is not np.random.PCG64:
        return None
    snapshot: Snapshot = {f"{prefix}random": _pack(random), f"{prefix}elapsed": np.array(elapsed)}
    for name in attributes:
        value = getattr(core, name)
        if value is not None:  # None is written as absence
            snapshot[f"{prefix}{name}"] = np.array(value)
    return snapshot


def _restore_one(core: Any, prefix: str, snapshot: Snapshot) -> None:
    for name in STATE_ATTRIBUTES[f"{type(core).__module__}.{type(core).__qualname__}"]:
        value = snapshot.get(f"{prefix}{name}")
        if value is not None:  # what came in a message is read-only
            value = value[()] if value.ndim == 0 else value.copy()
        setattr(core, name, value)
    core._np_random = _unpack(snapshot[f"{prefix}random"])


_LOW = (1 << 64) - 1


def _pack(random: np.random.Generator) -> NDArray[np.uint64]:
    """PCG64's two 128-bit integers and its buffered half-word as uint64 [6]: fits into any file format."""
    state: Any = random.bit_generator.state
    inner = state["state"]
    numbers = (
        inner["state"] >> 64, inner["state"] & _LOW, inner["inc"] >> 64, inner["inc"] & _LOW,
        state["has_uint32"], state["uinteger"],
    )
    return np.array(numbers, np.uint64)


def _unpack(packed: NDArray[np.uint64]) -> np.random.Generator:
    bits: Any = np.random.PCG64()
    high, low, inc_high, inc_low, has_uint32, uinteger = (int(number) for number in packed)
    bits.state = {
        "bit_generator": "PCG64",
        "state": {"state": high << 64 | low, "inc": inc_high << 64 | inc_low},
        "has_uint32": has_uint32,
        "uinteger": uinteger,
    }
    return np.random.Generator(bits)
