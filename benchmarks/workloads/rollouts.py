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


@workload("Pendulum random rollouts", group="rollouts", unit="env steps/s")
def pendulum_rollouts(api: ModuleType) -> Iterator[Step]:
    """One task an episode; the task makes its environment, as the plainest program would."""

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

    def step() -> float:
        return sum(api.get([episode.remote(seed) for seed in range(EPISODES)]))

    yield step


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
