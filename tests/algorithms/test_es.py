"""ES: learns, gives the same numbers whoever works, goes on bit for bit."""

from __future__ import annotations

import logging
import math
import os
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from rlflow import engine
from rlflow.algorithms import noise, stragglers
from rlflow.algorithms.errors import EnvStepError, StateError, TrainingDivergedError, UnfitConfigError
from rlflow.algorithms.es import ES, ESConfig
from rlflow.engine.testing import inject, kill_at_task

SMALL: dict[str, Any] = {
    "env": "CartPole-v1", "population": 16, "members_per_task": 4, "hidden": (8,), "sigma": 0.1,
    "learning_rate": 0.05, "weight_decay": 0.0, "noise_table": 100_000,
}
TIMED = ("time_rollout", "time_learn", "time_env", "steps_per_second")


def started(**changes: Any) -> ES:
    made = ES(ESConfig(**{**SMALL, **changes}), total_env_steps=100_000)
    made.setup()
    return made


def steps(algorithm: ES, count: int) -> list[dict[str, float]]:
    history = [algorithm.training_step() for _ in range(count)]
    return [{key: value for key, value in metrics.items() if key not in TIMED} for metrics in history]


@pytest.mark.usefixtures("inline_engine")
@pytest.mark.filterwarnings("ignore::RuntimeWarning:rlflow", "ignore::RuntimeWarning:numpy")  # numbers that are none
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
        with pytest.raises(UnfitConfigError, match=r"noise_table.*10.*larger than the policy, which has 58 parameters"):
            started(noise_table=10)

    @pytest.mark.parametrize(("observation", "error", "said"), [
        ((0.0, math.nan, 0.0), TrainingDivergedError, "Misreports-v0 gave an observation that is not finite"),
        ((math.inf, 0.0, 0.0), TrainingDivergedError, "not finite, on .*pid.*seeds"),
        ((0.0,), EnvStepError, "Misreports-v0 raised in step.*env 0 .*seed"),
    ])
    def test_an_env_that_gives_wrong_observations_is_named(self, observation, error, said):
        algorithm = started(env="broken_envs:Misreports-v0", env_kwargs={"observation": observation})
        with pytest.raises(engine.exceptions.TaskError) as caught:
            algorithm.training_step()
        assert isinstance(caught.value.cause, error)
        assert re.search(said, str(caught.value.cause))

    def test_parameters_that_are_no_longer_finite_end_the_run(self):
        algorithm = started(learning_rate=1e30, weight_decay=1e30)
        with pytest.raises(TrainingDivergedError, match="learning_rate"):
            steps(algorithm, 5)

    def test_weight_decay_pulls_towards_zero(self):
        free, pulled = started(learning_rate=0.01), started(learning_rate=0.01, weight_decay=10.0)
        steps(free, 1)
        steps(pulled, 1)
        assert np.linalg.norm(pulled.parameters) < np.linalg.norm(free.parameters)


@pytest.mark.parametrize(("wrong", "said"), [
    ({"population": 7}, "population.*must be even"),
    ({"members_per_task": 3}, "members_per_task.*must be even"),
    ({"population": 0}, "population"),
    ({"sgima": 0.1}, "sgima"),
    ({"sigma": 0.0}, "sigma.*above 0"),
    ({"sigma": "linear(0.1, 0)"}, "sigma.*above 0 all the time"),
    ({"hidden": [32, 0]}, "hidden.1"),
    ({"drop_late_after": 0.5}, "drop_late_after"),
    ({"weight_decay": -1.0}, "weight_decay"),
    ({"learning_rate": "fast"}, "schedule"),
])
def test_wrong_configs_are_refused(wrong, said):
    with pytest.raises(ValidationError, match=f"(?s){said}"):
        ESConfig(**{**SMALL, **wrong})


def test_numbers_do_not_depend_on_workers_or_their_deaths(tmp_path, monkeypatch):
    """A worker that plays pairs and an aggregator are killed in the second run; the bits stay."""
    monkeypatch.setattr(noise, "SLICES_PER_SUM", 2)
    runs = []
    for cpus, faults in ((1, []), (2, [kill_at_task("Aggregator.weighted_sum", nth=3)])):
        with inject(*faults) as injected:
            engine.init(num_cpus=cpus)
            try:
                algorithm = started()
                if faults:
                    algorithm._evaluate = engine.remote(dies_once(algorithm._evaluate.__wrapped__, tmp_path / "died"))
                runs.append((steps(algorithm, 3), algorithm.parameters.tobytes()))
                assert injected.happened() == [1] * len(faults)
                assert engine.get(engine.remote(is_view).remote(algorithm._table)), "workers copy the table"
                algorithm.close()
            finally:
                engine.shutdown()
    assert (tmp_path / "died").exists()
    assert runs[0] == runs[1]


def is_view(array: Any) -> bool:
    return not array.flags.owndata and not array.flags.writeable


def dies_once(function: Any, mark: Path) -> Any:
    def evaluate(*args: Any) -> Any:
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args)

    return evaluate


def test_a_straggler_is_run_beside_and_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(stragglers, "STRAGGLES_AFTER", 1.01)
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


def test_late_tasks_are_dropped_when_asked_for_and_the_log_says_so(caplog):
    engine.init(num_cpus=4)
    try:
        algorithm = started(drop_late_after=20.0)  # the others may be slow on a busy machine, and are not late
        assert algorithm.training_step()["dropped_members"] == 0
        algorithm._evaluate = engine.remote(hangs_at_first_pair(algorithm._evaluate.__wrapped__))
        with caplog.at_level(logging.WARNING, "rlflow"):
            metrics = algorithm.training_step()
        assert metrics["dropped_members"] == 4
        assert metrics["episodes"] == 16 + 12
        assert "1 of 4 tasks dropped" in caplog.text
        algorithm.close()
    finally:
        engine.shutdown()


def hangs_at_first_pair(function: Any) -> Any:
    def evaluate(*args: Any) -> Any:
        import threading

        report = function(*args)
        if report.first == 0:
            threading.Event().wait()  # until it is cancelled
        return report

    return evaluate
