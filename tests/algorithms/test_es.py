"""ES: learns, gives the same numbers whoever works, goes on bit for bit."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from rlflow import engine
from rlflow.algorithms import es
from rlflow.algorithms.errors import StateError
from rlflow.algorithms.es import ES, ESConfig

SMALL: dict[str, Any] = {
    "env": "CartPole-v1", "population": 16, "members_per_task": 4, "hidden": (8,), "sigma": 0.1,
    "learning_rate": 0.05, "weight_decay": 0.0, "noise_table": 100_000,
}
TIMED = ("time_rollout", "time_learn", "steps_per_second")


def started(**changes: Any) -> ES:
    made = ES(ESConfig(**{**SMALL, **changes}), total_env_steps=100_000)
    made.setup()
    return made


def steps(algorithm: ES, count: int) -> list[dict[str, float]]:
    history = [algorithm.training_step() for _ in range(count)]
    return [{key: value for key, value in metrics.items() if key not in TIMED} for metrics in history]


@pytest.mark.usefixtures("inline_engine")
class TestInline:
    def test_learns_cartpole(self):
        algorithm = started()
        history = steps(algorithm, 15)
        assert history[-1]["episode_return"] > 3 * history[0]["episode_return"]
        assert algorithm.evaluate(10, seed=0).mean_return > 300.0
        algorithm.close()
        algorithm.close()

    def test_metrics_are_complete_and_finite(self):
        algorithm = started(cap_episodes=True)
        for metrics in (algorithm.training_step() for _ in range(2)):
            assert all(math.isfinite(value) for value in metrics.values())
            assert {"env_steps", "iteration", "episodes", "episode_return", "steps_per_second"} <= metrics.keys()
        assert metrics["episodes"] == 32 and metrics["iteration"] == 2

    @pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
    def test_a_saved_state_continues_bit_for_bit(self, env):
        original = started(env=env)
        steps(original, 2)
        saved = original.state()
        ahead = steps(original, 2)
        resumed = started(env=env)
        resumed.load_state(saved)
        assert steps(resumed, 2) == ahead
        assert resumed.parameters.tobytes() == original.parameters.tobytes()
        assert resumed.evaluate(3, seed=0) == original.evaluate(3, seed=0)

    def test_a_state_of_something_else_is_refused(self):
        saved = started().state()
        with pytest.raises(StateError, match="parameters"):
            started(hidden=(4,)).load_state(saved)
        with pytest.raises(StateError, match="algorithm 'ppo'"):
            started().load_state({**saved, "algorithm": "ppo"})

    def test_a_seed_of_its_own_gives_other_numbers(self):
        assert steps(started(seed=1), 1) != steps(started(seed=2), 1)

    def test_a_cap_bounds_episodes(self):
        algorithm = started(cap_episodes=True)
        first = algorithm.training_step()
        reports = algorithm.collect(np.arange(8), 0.1)
        assert max(report.lengths.max() for report in reports) <= round(2 * first["episode_length"])

    def test_a_table_smaller_than_the_policy_is_refused(self):
        with pytest.raises(ValueError, match="noise_table"):
            started(noise_table=10)


@pytest.mark.parametrize("wrong", [{"population": 7}, {"members_per_task": 3}, {"population": 0}, {"sgima": 0.1}])
def test_wrong_configs_are_refused(wrong):
    with pytest.raises(ValidationError):
        ESConfig(**{**SMALL, **wrong})


def test_numbers_do_not_depend_on_workers_or_their_deaths(tmp_path, monkeypatch):
    """A worker that plays pairs is killed once in the second run; the bits stay."""
    runs = []
    for cpus, deaths in ((1, 0), (2, 1)):
        engine.init(num_cpus=cpus)
        try:
            algorithm = started()
            if deaths:
                algorithm._evaluate = engine.remote(dies_once(algorithm._evaluate.__wrapped__, tmp_path / "died"))
            runs.append((steps(algorithm, 3), algorithm.parameters.tobytes()))
            algorithm.close()
        finally:
            engine.shutdown()
    assert (tmp_path / "died").exists()
    assert runs[0] == runs[1]


def dies_once(function: Any, mark: Path) -> Any:
    def evaluate(*args: Any) -> Any:
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args)

    return evaluate


def test_a_straggler_is_run_beside_and_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(es, "STRAGGLES_AFTER", 1.01)
    engine.init(num_cpus=4)
    try:
        algorithm = started()
        expected = steps(algorithm, 2)
        algorithm.close()
        algorithm = started()
        algorithm._evaluate = engine.remote(hangs_once(algorithm._evaluate.__wrapped__, tmp_path / "hung"))
        assert steps(algorithm, 2) == expected
        assert (tmp_path / "hung").exists()
        algorithm.close()
    finally:
        engine.shutdown()


def hangs_once(function: Any, mark: Path) -> Any:
    def evaluate(*args: Any) -> Any:
        import threading

        if not mark.exists():
            mark.touch()
            threading.Event().wait()  # until it is cancelled, being the slower of two
        return function(*args)

    return evaluate
