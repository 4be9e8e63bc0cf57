"""Wrappers by name: found, given their arguments, around every copy; a native vector env gives way to them."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from rlflow.algorithms.envs import VectorStepper, check_env, spaces_of
from rlflow.algorithms.errors import EnvStepError, UnknownWrapperError
from rlflow.algorithms.ppo import PPO, PPOConfig

STACKED = {"name": "FrameStackObservation", "stack_size": 3}


class Doubled(gymnasium.RewardWrapper[Any, Any]):
    def reward(self, reward: Any) -> float:
        return 2.0 * float(reward)


def config_of(*wrappers: dict[str, Any], env: str = "CartPole-v1", **changes: Any) -> PPOConfig:
    small = {"num_envs": 2, "rollout_length": 16, "epochs": 1}
    return PPOConfig(env=env, wrappers=list(wrappers), **{**small, **changes})


def test_wrappers_are_put_around_in_order(inline_engine):
    config = config_of({"name": "TimeLimit", "max_episode_steps": 5}, {"name": "test_wrappers:Doubled"}, STACKED)
    space, _ = spaces_of(config.env, config.env_arguments)
    assert space.shape == (3, 4)
    stepper = VectorStepper(config.env, config.env_arguments, 2)
    assert isinstance(stepper.env, SyncVectorEnv)
    stepper.close()
    algorithm = PPO(config, 1000)
    algorithm.setup()
    metrics = algorithm.training_step()
    assert metrics["episode_length"] == 5 and metrics["episode_return"] == 10
    played = algorithm.evaluate(2, seed=0)
    assert played.returns == [10.0, 10.0] and played.lengths == [5, 5]
    algorithm.close()


def test_a_mask_comes_from_the_info(inline_engine):
    """The environment raises if it is given a forbidden action."""
    mask = {"name": "rlflow.algorithms.wrappers:ActionMaskFromInfo"}
    for multi in (False, True):
        algorithm = PPO(config_of(
            mask, env="toy_envs:Masked-v0", env_kwargs={"in_info": True, "multi": multi}, learning_rate=0.05
        ), 1000)
        algorithm.setup()
        assert algorithm.policy.layout.mask_size == (5 if multi else 4)
        algorithm.training_step()
        assert algorithm.evaluate(2, seed=0).lengths == [12, 12]
        algorithm.close()


def test_what_gets_lost_is_said():
    with pytest.warns(UserWarning, match="CartPole-v1 steps all its copies at once"):
        check_env("CartPole-v1", config_of(STACKED).env_arguments)


@pytest.mark.parametrize(("wrapper", "error", "said"), [
    ({"name": "FrameStackObservatio"}, UnknownWrapperError, "did you mean 'FrameStackObservation'"),
    ({"name": "no_such_module:X"}, UnknownWrapperError, "cannot import module 'no_such_module'"),
    ({"name": "numpy:ndarray"}, UnknownWrapperError, "no gymnasium.Wrapper"),
    ({"name": "FrameStackObservation", "size": 3}, EnvStepError, "size"),
    ({"name": "rlflow.algorithms.wrappers:ActionMaskFromInfo"}, EnvStepError, "not Box"),
])
def test_what_cannot_be_wrapped_is_named(wrapper, error, said):
    with pytest.raises(error, match=said):
        check_env("Pendulum-v1", config_of(wrapper, env="Pendulum-v1").env_arguments)


def test_a_wrapper_needs_a_name():
    with pytest.raises(ValueError, match="name"):
        config_of({"stack_size": 3})


def test_without_wrappers_the_arguments_are_the_environments_own():
    config = PPOConfig(env="CartPole-v1", env_kwargs={"sutton_barto_reward": True})
    assert config.env_arguments == {"sutton_barto_reward": True}
    assert PPOConfig(**config_of(STACKED).model_dump()) == config_of(STACKED)
    assert np.prod(spaces_of("CartPole-v1", config_of(STACKED).env_arguments)[0].shape) == 12
