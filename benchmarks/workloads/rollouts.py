"""What reinforcement learning asks of an engine: simulations as tasks, inference as an actor."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np

from .registry import Step, workload

EPISODES = 20
BATCH = 500


def _plain_episode(api: ModuleType) -> Any:
    """As the plainest program would: the task makes its environment, and samples an action a step."""

    @api.remote
    def episode(seed: int) -> int:
        import gymnasium

        env = gymnasium.make("Pendulum-v1")
        env.reset(seed=seed)
        env.action_space.seed(seed)
        steps, done = 0, False
        while not done:
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            steps, done = steps + 1, terminated or truncated
        return steps

    return episode


def _warm_episode(api: ModuleType) -> Any:
    """As rlflow's algorithms do: the environment stays in its worker, and actions are drawn for many steps at once."""
    kept: dict[str, Any] = {}  # travels empty; a worker loads a function once, and so has a dict of its own

    @api.remote
    def episode(seed: int) -> int:
        if "env" not in kept:
            import gymnasium

            kept["env"] = gymnasium.make("Pendulum-v1")
        env = kept["env"]
        env.reset(seed=seed)
        low, high = env.action_space.low, env.action_space.high
        actions = np.random.default_rng(seed).uniform(low, high, (env.spec.max_episode_steps, *low.shape))
        steps = 0
        for action in actions.astype(low.dtype):
            _, _, terminated, truncated, _ = env.step(action)
            steps += 1
            if terminated or truncated:
                break
        return steps

    return episode


def _episodes(api: ModuleType, episode: Any) -> Step:
    def step() -> float:
        return sum(api.get([episode.remote(seed) for seed in range(EPISODES)]))

    return step


@workload("Pendulum random rollouts", group="rollouts", unit="env steps/s")
def pendulum_rollouts(api: ModuleType) -> Iterator[Step]:
    yield _episodes(api, _plain_episode(api))


@workload("Pendulum, warm env", group="rollouts", unit="env steps/s")
def pendulum_rollouts_warm(api: ModuleType) -> Iterator[Step]:
    yield _episodes(api, _warm_episode(api))


@workload("Pendulum, warm env; Ray plain", group="rollouts", unit="env steps/s")
def pendulum_rollouts_warm_on_ours(api: ModuleType) -> Iterator[Step]:
    """How rlflow rolls out beside the plainest program on Ray: the one row whose program differs between the sides."""
    yield _episodes(api, _plain_episode(api) if api.__name__ == "ray" else _warm_episode(api))


def _policy_server(api: ModuleType) -> Any:
    @api.remote
    class PolicyServer:
        """A 4-64-64-2 tanh network in NumPy."""

        def __init__(self) -> None:
            rng = np.random.default_rng(0)
            sizes = (4, 64, 64, 2)
            self.layers = [
                (rng.normal(size=(fan_in, fan_out)).astype(np.float32), np.zeros(fan_out, np.float32))
                for fan_in, fan_out in pairwise(sizes)
            ]

        def act(self, observations: Any) -> Any:
            hidden = observations
            for weight, bias in self.layers[:-1]:
                hidden = np.tanh(hidden @ weight + bias)
            weight, bias = self.layers[-1]
            return (hidden @ weight + bias).argmax(axis=1)

    return PolicyServer.remote()


@workload("inference actor, batch 1, sync", group="rollouts", unit="states/s", latency=True)
def inference_sync(api: ModuleType) -> Iterator[Step]:
    server = _policy_server(api)
    state = np.zeros((1, 4), np.float32)

    def step() -> float:
        api.get(server.act.remote(state))
        return 1

    yield step


@workload("inference actor, batch 1, async", group="rollouts", unit="states/s")
def inference_async(api: ModuleType) -> Iterator[Step]:
    server = _policy_server(api)
    state = np.zeros((1, 4), np.float32)

    def step() -> float:
        api.get([server.act.remote(state) for _ in range(BATCH)])
        return BATCH

    yield step
