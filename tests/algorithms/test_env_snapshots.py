"""A restored environment continues bit for bit, on rewards and flags too, through resets and time limits."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from rlflow.algorithms import env_snapshots
from rlflow.algorithms.envs import VectorStepper

CLASSIC = ["CartPole-v1", "Pendulum-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Acrobot-v1"]
CASES = [*CLASSIC, "FromSingleEnvs-v0"]  # CartPole-v1 is a native vector env, FromSingleEnvs-v0 is not
gymnasium.register("FromSingleEnvs-v0", entry_point="gymnasium.envs.classic_control:CartPoleEnv")


def make(name: str) -> VectorStepper:
    return VectorStepper(name, {"max_episode_steps": 40}, 3)


def walk(stepper: VectorStepper, seed: int, steps: int) -> list[np.ndarray]:
    stepper.env.action_space.seed(seed)
    seen: list[np.ndarray] = []
    for _ in range(steps):
        made = stepper.step(stepper.env.action_space.sample())
        seen += [np.array(part) for part in made if part is not None]
    return seen


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("into", ["fresh", "used"])
def test_restored_environments_continue_bit_for_bit(name, into):
    original = make(name)
    original.reset([1, 2, 3])
    for steps in (0, 17, 45):  # straight after the reset, in mid-episode, after time limits and resets
        walk(original, seed=steps, steps=steps)
        snapshot = env_snapshots.take(original.env)
        assert snapshot is not None
        for array in snapshot.values():
            array.flags.writeable = False  # as it arrives in a message
        copy = make(name)
        if into == "used":
            copy.reset([7, 8, 9])
            walk(copy, seed=5, steps=11)
        env_snapshots.restore(copy.env, snapshot)
        continued, again = walk(original, 99, 100), walk(copy, 99, 100)
        assert len(continued) == len(again)
        assert any(part.dtype == np.bool_ and part.any() for part in continued), "no episode ended"
        for left, right in zip(continued, again, strict=True):
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)


def test_unknown_environments_and_wrappers_have_no_snapshot():
    unknown = VectorStepper("broken_envs:Counter-v0", {}, 2)
    unknown.reset([0, 1])
    assert env_snapshots.take(unknown.env) is None
    wrapped = VectorStepper("Pendulum-v1", {}, 2)
    wrapped.reset([0, 1])
    wrapped.env.envs[0] = gymnasium.wrappers.FrameStackObservation(wrapped.env.envs[0], 2)
    assert env_snapshots.take(wrapped.env) is None
