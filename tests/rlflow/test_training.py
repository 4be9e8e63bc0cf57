"""Whole small trainings from Python: what they leave, what listeners hear, how they end."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rlflow
from rlflow import engine
from rlflow.algorithms import resolve
from rlflow.callbacks import Callback, RunStart
from rlflow.checkpoint import load_checkpoint
from rlflow.config_check import check_config
from rlflow.config_source import ConfigError, read_config_file
from rlflow.errors import TrainingFailed, TrainingInterrupted
from rlflow.run_folder import RunFolder

SMALL: dict[str, Any] = {
    "env": "CartPole-v1", "seed": 3, "stop": {"env_steps": 600}, "evaluation": {"episodes": 2},
    "checkpoint": {"every_env_steps": 200, "keep": 2}, "engine": {"backend": "inline"},
    "num_envs": 4, "rollout_length": 32, "minibatch_size": 64, "epochs": 2,
}  # fmt: skip


class Listener(Callback):
    """Writes down every event it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_start(self, start: RunStart) -> None:
        self.heard.append(f"start {start.total_env_steps}")

    def on_iteration(self, metrics: dict[str, float]) -> None:
        self.heard.append("iteration")

    def on_checkpoint(self, path: Path) -> None:
        self.heard.append("checkpoint")

    def on_stopping(self, signal_name: str) -> None:
        self.heard.append(signal_name)

    def on_evaluation_start(self, episodes: int) -> None:
        self.heard.append(f"evaluate {episodes}")

    def on_evaluation(self, evaluation: Any, env_steps: int, final: bool) -> None:
        self.heard.append("evaluated")

    def on_end(self, folder: RunFolder) -> None:
        self.heard.append("end")


def test_a_run_leaves_everything_and_can_be_trained_again(workdir: Path) -> None:
    listener = Listener()
    run = rlflow.train("ppo", **SMALL, progress=False, callbacks=[listener])

    assert run.path.parent == Path("runs") and run.path.name.startswith("ppo_CartPole-v1_3_")
    steps = list(run.metrics["env_steps"])
    assert steps == sorted(set(steps)) and steps[-1] >= 600
    assert {"iteration", "policy_loss", "steps_per_second", "time_total"} <= set(run.metrics.columns)
    assert len(run.checkpoints) == 3, "the newest two and the best"
    assert run.checkpoints[-1].name == f"step_{steps[-1]:.0f}"
    assert run.evaluation is not None and run.evaluation["episodes"] == 2
    assert run.evaluation["mean_return"] == np.mean(run.evaluation["returns"])
    assert "checkpoint" in (run.path / "log.txt").read_text()
    assert (run.path / "environment.json").is_file()
    assert not engine.is_initialized()

    assert listener.heard[0] == "start 600"
    assert listener.heard.count("iteration") == len(steps)
    assert listener.heard[-4:] == ["checkpoint", "evaluate 2", "evaluated", "end"]

    again = check_config(read_config_file(run.path / "config.yaml"))
    assert again.as_mapping() == run.config


def test_the_last_checkpoint_holds_the_policy_that_was_evaluated(workdir: Path) -> None:
    run = rlflow.train("ppo", **SMALL, progress=False)
    checkpoint = load_checkpoint(run.checkpoints[-1])
    assert checkpoint.about["algorithm"] == "ppo"
    config = check_config(read_config_file(run.path / "config.yaml"))
    engine.init(backend="inline")
    try:
        algorithm = resolve("ppo")(config.algorithm, total_env_steps=600)
        algorithm.setup()
        algorithm.load_state(checkpoint.state)
        assert algorithm.env_steps == checkpoint.about["env_steps"]
        assert run.evaluation is not None
        assert algorithm.evaluate(2, seed=10_000).returns == run.evaluation["returns"]
        algorithm.close()
    finally:
        engine.shutdown()


def test_a_class_can_be_trained_and_is_named_in_the_config(workdir: Path) -> None:
    class Mine(resolve("ppo")):  # type: ignore[misc] # a base class that is known at run time
        pass

    run = rlflow.train(Mine, **{**SMALL, "stop": {"env_steps": 100}, "evaluation": {"episodes": 0}}, progress=False)
    assert run.config["algorithm"].endswith("Mine")
    assert run.evaluation is None


def test_the_same_seed_gives_the_same_numbers(workdir: Path) -> None:
    first, second = (rlflow.train("ppo", **SMALL, progress=False) for _ in range(2))
    assert first.path != second.path
    assert first.evaluation == second.evaluation
    assert list(first.metrics["policy_loss"]) == list(second.metrics["policy_loss"])


def test_an_engine_that_runs_already_is_used_and_left_running(workdir: Path) -> None:
    engine.init(backend="inline")
    try:
        rlflow.train("ppo", **{**SMALL, "stop": {"env_steps": 100}}, progress=False)
        assert engine.is_initialized()
    finally:
        engine.shutdown()


def test_wrong_options_are_all_named(workdir: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        rlflow.train("ppo", env="CartPole-v1", lr="fast", bogus=1)
    assert len(caught.value.problems) == 3  # lr, bogus, and the missing stop
    assert not Path("runs").exists()


BROKEN_ENV = """\
import gymnasium
import numpy as np

class Broken(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.steps += 1
        if self.steps == 5:
            raise ZeroDivisionError("the wheel came off")
        return np.zeros(2, np.float32), 1.0, False, False, {}

gymnasium.register("Broken-v0", Broken)
"""


def test_an_env_that_raises_is_reported_with_all_that_helps(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workdir / "wheel_env.py").write_text(BROKEN_ENV)
    monkeypatch.syspath_prepend(workdir)
    listener = Listener()
    with pytest.raises(TrainingFailed) as caught:
        rlflow.train("ppo", **{**SMALL, "env": "wheel_env:Broken-v0"}, progress=False, callbacks=[listener])
    first, reason, place, log = str(caught.value).splitlines()
    assert first.startswith("wheel_env:Broken-v0 raised in step(): env 0 on worker ")
    assert ", seed " in first and ", last action " in first
    assert reason == "  ZeroDivisionError: the wheel came off"
    assert place == "  at wheel_env.py, line 16"
    log_file = caught.value.run / "log.txt"
    assert log.endswith(str(log_file)) and "Traceback" in log_file.read_text()
    assert listener.heard[-1] == "end" and not engine.is_initialized()


class SignalsItself(Listener):
    """Sends this process a signal when the second iteration ends."""

    def __init__(self, number: signal.Signals, at: str = "iteration") -> None:
        super().__init__()
        self._number, self._at = number, at

    def on_iteration(self, metrics: dict[str, float]) -> None:
        super().on_iteration(metrics)
        if self._at == "iteration" and self.heard.count("iteration") == 2:
            os.kill(os.getpid(), self._number)

    def on_evaluation_start(self, episodes: int) -> None:
        super().on_evaluation_start(episodes)
        if self._at == "evaluation":
            os.kill(os.getpid(), self._number)


def test_an_interrupt_ends_the_iteration_and_saves_it(workdir: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    listener = SignalsItself(signal.SIGINT)
    with pytest.raises(TrainingInterrupted) as caught:
        rlflow.train("ppo", **SMALL, progress=False, callbacks=[listener])
    assert caught.value.exit_code == 130 and caught.value.run is not None
    run = rlflow.Run(caught.value.run)
    assert listener.heard == ["start 600", "iteration", "iteration", "SIGINT", "checkpoint", "end"]
    assert caught.value.checkpoint == run.checkpoints[-1]
    assert load_checkpoint(run.checkpoints[-1]).about["env_steps"] == max(run.metrics["env_steps"])
    assert run.evaluation is None
    assert signal.getsignal(signal.SIGINT) is before and not engine.is_initialized()


def test_an_interrupt_while_evaluating_ends_at_once(workdir: Path) -> None:
    listener = SignalsItself(signal.SIGINT, at="evaluation")
    with pytest.raises(TrainingInterrupted) as caught:
        rlflow.train("ppo", **SMALL, progress=False, callbacks=[listener])
    assert listener.heard[-2:] == ["evaluate 2", "end"]
    assert caught.value.checkpoint is not None


class Impatient(SignalsItself):
    """Sends the signal again as soon as the first one was noticed."""

    def on_stopping(self, signal_name: str) -> None:
        super().on_stopping(signal_name)
        os.kill(os.getpid(), self._number)


def test_a_second_interrupt_does_not_wait_for_the_iteration(workdir: Path) -> None:
    listener = Impatient(signal.SIGINT)
    with pytest.raises(TrainingInterrupted) as caught:
        rlflow.train("ppo", **SMALL, progress=False, callbacks=[listener])
    assert listener.heard == ["start 600", "iteration", "iteration", "SIGINT", "end"]
    assert caught.value.checkpoint is None
    assert not engine.is_initialized()


def test_a_run_in_another_thread_leaves_signals_alone(workdir: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(rlflow.train, "ppo", **SMALL, progress=False).result()
    assert run.evaluation is not None
    assert signal.getsignal(signal.SIGINT) is before
