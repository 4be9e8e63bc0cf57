"""What environments give beside observations and rewards, and values that nobody can train on."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rlflow import engine
from rlflow.algorithms.a3c import A3C, A3CConfig
from rlflow.algorithms.errors import BadEnvValueError
from rlflow.algorithms.ppo import PPO, PPOConfig


class Scored(gymnasium.Env[Any, Any]):
    """Episodes of three steps; the info of the last has the episode's number as ``score``."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, wrong: str = "", **_: Any) -> None:
        self._wrong, self._episode, self._steps = wrong, 0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self._episode, self._steps = self._episode + 1, 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self._steps += 1
        ended = self._steps == 3
        observation, reward = np.zeros(2, np.float32), 1.0
        if self._episode == 2 and self._steps == 2:
            if self._wrong == "observation":
                observation[1] = np.nan
            if self._wrong == "reward":
                reward = np.inf
        return observation, reward, ended, False, {"score": self._episode, "text": "x"} if ended else {}


def vector(num_envs: int, mode: str = "", **kwargs: Any) -> Any:
    return SyncVectorEnv([lambda: Scored(**kwargs)] * num_envs, autoreset_mode=AutoresetMode(mode))


gymnasium.register("Scored-v0", entry_point=Scored)
gymnasium.register("ScoredVector-v0", entry_point=Scored, vector_entry_point=vector)
SMALL = {"num_envs": 2, "rollout_length": 9, "policy_hidden": (4,), "value_hidden": (4,)}


@pytest.mark.parametrize(("env", "kwargs"), [
    ("Scored-v0", {}), ("ScoredVector-v0", {"mode": "NextStep"}), ("ScoredVector-v0", {"mode": "SameStep"}),
])
def test_numbers_in_the_info_become_metrics(inline_engine, env, kwargs):
    common = {"env": f"test_env_values:{env}", "env_kwargs": kwargs, "episode_info": ["score"], **SMALL}
    for algorithm in (PPO(PPOConfig(**common, epochs=1), 1000), A3C(A3CConfig(**common, gradients=1), 1000)):
        algorithm.setup()
        metrics = algorithm.training_step()
        ended = metrics["episodes"]
        assert ended == (4 if kwargs.get("mode") == "NextStep" else 6)  # two environments, three steps or four
        assert metrics["episode_score"] == np.mean(range(1, ended // 2 + 1))
        resumed = type(algorithm)(algorithm.config, 1000)
        resumed.setup()
        resumed.load_state(algorithm.state())
        assert resumed.episodes.metrics() == algorithm.episodes.metrics()
        algorithm.close()
        resumed.close()


@pytest.mark.parametrize(("name", "said"), [
    ("scor", r"has no 'scor'.*score, text"), ("text", r"'text' of .* is no number"),
])
def test_a_name_that_leads_to_no_number_is_an_error(inline_engine, name, said):
    algorithm = PPO(PPOConfig(env="test_env_values:Scored-v0", episode_info=[name], **SMALL), 1000)
    algorithm.setup()
    with pytest.raises(engine.exceptions.TaskError) as caught:
        algorithm.training_step()
    assert isinstance(caught.value.cause, BadEnvValueError)
    caught.match(said)
    algorithm.close()


@pytest.mark.parametrize(("wrong", "said"), [
    ("observation", r"gave the observation nan \(number 1 of its row\)"), ("reward", "gave the reward inf"),
])
def test_values_that_are_not_finite_are_named(inline_engine, wrong, said):
    algorithm = PPO(PPOConfig(env="test_env_values:Scored-v0", env_kwargs={"wrong": wrong}, **SMALL), 1000)
    algorithm.setup()
    with pytest.raises(engine.exceptions.TaskError) as caught:
        algorithm.training_step()
    assert isinstance(caught.value.cause, BadEnvValueError)
    caught.match(said)
    step = 5 if wrong == "observation" else 4
    caught.match(rf"env 0 on .*, seed \d+, step {step} of the rollout")
    algorithm.close()
