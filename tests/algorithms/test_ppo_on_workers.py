"""PPO on worker processes: learns, does not depend on their number, keeps torch in the learner."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from rlflow import engine
from rlflow.algorithms.ppo import PPO, PPOConfig

ZOO: dict[str, Any] = {
    "env": "CartPole-v1", "num_envs": 8, "rollout_length": 32, "minibatch_size": 256, "epochs": 20,
    "gamma": 0.98, "gae_lambda": 0.8, "learning_rate": "linear(1e-3, 0)", "clip_range": "linear(0.2, 0)",
}


def train(num_cpus: int, total: int, iterations: int | None = None, **changes: Any) -> tuple[list[Any], float]:
    """(metrics of every iteration without the timings, mean evaluation return)."""
    engine.init(num_cpus=num_cpus)
    try:
        algorithm = PPO(PPOConfig(**{**ZOO, **changes}), total)
        algorithm.setup()
        history = []
        while algorithm.env_steps < total and len(history) != iterations:
            metrics = algorithm.training_step()
            timed = ("time_rollout", "time_learn", "steps_per_second")
            history.append({key: value for key, value in metrics.items() if key not in timed})
        score = algorithm.evaluate(10, seed=0).mean_return
        algorithm.close()
        return history, score
    finally:
        engine.shutdown()


def test_learns_cartpole():
    _, score = train(num_cpus=2, total=30_000)
    assert score > 250.0  # 500 with the 100k steps it takes


def test_numbers_do_not_depend_on_the_number_of_workers():
    runs = [train(cpus, 5000, iterations=6, env_groups=4, epochs=2) for cpus in (1, 3)]
    assert runs[0] == runs[1]


SCRIPT = """
import sys
from rlflow import engine
from rlflow.algorithms import resolve

engine.init(num_cpus=2)
PPO = resolve("ppo")
algorithm = PPO(PPO.Config(env="CartPole-v1", num_envs=4, rollout_length=8, epochs=1), 1000)
algorithm.setup()
algorithm.training_step()
algorithm.evaluate(2, seed=0)

def imported():
    import sys
    return "torch" in sys.modules

assert not imported(), "torch in the driver"
assert not any(engine.get([engine.remote(imported).remote() for _ in range(20)])), "torch in a rollout worker"
engine.shutdown()
"""


def test_torch_stays_in_the_learner():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
