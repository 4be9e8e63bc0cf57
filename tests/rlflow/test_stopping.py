"""When a run ends: by steps, time, return, a callback's wish, or a signal; and what may happen in between."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

import rlflow as package
from rlflow.callbacks import Callback, EarlyStop, RunStart, StopTraining
from rlflow.checkpoint import read_manifest
from rlflow.config_source import ConfigError
from rlflow.errors import InputError, TrainingInterrupted
from rlflow.run_folder import RunFolder

if TYPE_CHECKING:
    from .conftest import Command, Start

SMALL: dict[str, Any] = {
    "env": "CartPole-v1", "seed": 3, "stop": {"env_steps": 600}, "evaluation": {"episodes": 2},
    "checkpoint": {"every_env_steps": 200, "keep": 2}, "engine": {"backend": "inline"},
    "num_envs": 4, "rollout_length": 32, "minibatch_size": 64, "epochs": 2, "trackers": [],
}  # fmt: skip


def train(**options: Any) -> package.Run:
    return package.train("ppo", **{**SMALL, "progress": False, **options})


def test_a_run_ends_when_its_time_is_up(workdir: Path) -> None:
    run = train(stop={"env_steps": 10**9, "minutes": 1e-6})
    assert (run.status["state"], run.status["reason"]) == ("complete", "1e-06 minutes")
    assert len(run.metrics) == 1 and run.evaluation is not None
    assert run.resume(progress=False).status["at"] == run.status["at"], "nothing was left to do"
    run.resume(stop={"minutes": 2e-6}, progress=False)
    assert len(run.metrics) == 1, "the time before counts"


def test_a_run_ends_when_it_is_good_enough(workdir: Path) -> None:
    run = train(stop={"env_steps": 10**9, "episode_return": 5.0})
    assert run.status["state"] == "complete" and run.status["reason"].startswith("an episode return of ")
    episodes = list(run.metrics["episodes"])
    assert episodes[-1] >= 100 > episodes[-2], "the mean of fewer may be luck"


def test_a_run_that_is_evaluated_in_between_keeps_what_was_best(workdir: Path) -> None:
    run = train(
        stop={"env_steps": 1200}, evaluation={"episodes": 2, "every_env_steps": 300},
        checkpoint={"every_env_steps": 200},
    )
    folder = RunFolder(run.path)
    between = folder.read_evaluations()
    assert [row["env_steps"] // 100 for row in between] == [3, 7, 11]
    best = folder.best_checkpoint()
    assert best is not None and run.evaluation is not None
    scores = [row["mean_return"] for row in between] + [run.evaluation["mean_return"]]
    assert read_manifest(best)["about"]["score"] == max(scores)
    assert run.evaluate(2, checkpoint="best").mean_return == max(scores)
    assert list(run.metrics["policy_loss"]) == list(train(stop={"env_steps": 1200}).metrics["policy_loss"])

    whole = folder.read_evaluations()
    for checkpoint in run.checkpoints[1:]:
        for file in checkpoint.iterdir():
            file.unlink()
        checkpoint.rmdir()
    (run.path / "evaluation.json").unlink()
    run.resume(progress=False)
    assert [{**row, "at": 0} for row in folder.read_evaluations()] == [{**row, "at": 0} for row in whole]


class Adds(Callback):
    """A custom metric, and the end after the third iteration."""

    def __init__(self) -> None:
        self.ends = 0

    def on_iteration(self, metrics: dict[str, float]) -> None:
        metrics["twice"] = 2.0 * metrics["iteration"]
        if metrics["iteration"] == 3:
            raise StopTraining("three are enough")

    def on_end(self, folder: RunFolder) -> None:
        self.ends += 1
        assert folder.read_status()["state"] == "complete"


class Hears(Callback):
    def __init__(self) -> None:
        self.twice: list[float] = []

    def on_iteration(self, metrics: dict[str, float]) -> None:
        self.twice.append(metrics["twice"])


def test_a_callback_adds_a_metric_and_ends_the_run(workdir: Path) -> None:
    adds, hears = Adds(), Hears()
    run = train(stop={"env_steps": 10**9}, callbacks=[adds, hears])
    assert list(run.metrics["twice"]) == hears.twice == [2.0, 4.0, 6.0], "the last one is heard by all"
    assert run.status["reason"] == "three are enough" and adds.ends == 1
    assert run.evaluation is not None and run.checkpoints


@pytest.mark.parametrize(("mode", "values", "stops"), [
    ("max", [1.0, 2.0, 2.0, 1.9], [False, False, False, True]),
    ("min", [3.0, None, 2.0, 2.5, 2.1], [False, False, False, False, True]),
])  # fmt: skip
def test_early_stop_waits_for_a_better_value(mode: str, values: list[float | None], stops: list[bool]) -> None:
    stop = EarlyStop("loss", patience=2, mode=mode)
    for value, expected in zip(values, stops, strict=True):
        try:
            stop.on_iteration({} if value is None else {"loss": value})
        except StopTraining as wish:
            assert expected, wish
        else:
            assert not expected


def test_early_stop_remembers_when_a_run_goes_on(workdir: Path) -> None:
    folder = RunFolder.create(workdir, "run")
    for steps, value in ((10, 5.0), (20, 4.0), (30, 4.0), (40, 9.0)):
        folder.append_metrics({"env_steps": steps, "loss": value})
    stop = EarlyStop("loss", patience=3)
    stop.on_start(RunStart(None, folder, 1, env_steps=30))  # type: ignore[arg-type] # it does not look at the config
    with pytest.raises(StopTraining, match="loss has not been better than 5 for 3 iterations"):
        stop.on_iteration({"loss": 5.0})


def test_callbacks_are_named_in_a_config(rlflow: Command, workdir: Path) -> None:
    (workdir / "mine.py").write_text(
        "from rlflow.callbacks import Callback, StopTraining\n\n"
        "class Stops(Callback):\n"
        "    def __init__(self, after=1):\n"
        "        self.after = after\n\n"
        "    def on_iteration(self, metrics):\n"
        "        metrics['mine'] = 1.0\n"
        "        if metrics['iteration'] >= self.after:\n"
        "            raise StopTraining('enough')\n"
    )
    done = rlflow("train", "small.yaml", "callbacks=['rlflow.callbacks:EarlyStop', {'mine:Stops': {after: 2}}]")
    assert done.returncode == 0, done.stderr
    [path] = (workdir / "runs").iterdir()
    run = package.Run(path)
    assert list(run.metrics["mine"]) == [1.0, 1.0] and run.status["reason"] == "enough"


@pytest.mark.parametrize(("named", "said"), [
    ("nowhere:Stops", "callback 'nowhere:Stops': there is no module 'nowhere'"),
    ("rlflow.callbacks:Early", "module 'rlflow.callbacks' has no 'Early'"),
    ("rlflow.callbacks:Path", "which is no rlflow.callbacks.Callback"),
    ("EarlyStop", "expected 'module:Class', such as rlflow.callbacks:EarlyStop"),
    ({"rlflow.callbacks:EarlyStop": {"patient": 3}}, "got an unexpected keyword argument 'patient'; it is EarlyStop"),
])  # fmt: skip
def test_a_callback_that_cannot_be_made_is_named(workdir: Path, named: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        package.train({"algorithm": "ppo", **SMALL, "callbacks": [named]}, progress=False)
    assert said in str(caught.value)
    with pytest.raises(InputError, match="EarlyStop: ValueError: patience must be at least 1"):
        package.train(
            {"algorithm": "ppo", **SMALL, "callbacks": [{"rlflow.callbacks:EarlyStop": {"patience": 0}}]},
            progress=False,
        )
    assert not Path("runs").exists()


@pytest.mark.parametrize("backend", ["local", "inline"])
def test_a_preempted_job_exits_with_0_and_goes_on(
    start_rlflow: Start, rlflow: Command, workdir: Path, backend: str
) -> None:
    """As Slurm preempts: SIGTERM to every process of the job, workers and daemon included."""
    endless = ["train", "small.yaml", "stop.env_steps=100000000", "trackers=[]"]
    process = start_rlflow(*endless, f"engine.backend={backend}")
    assert process.stdout is not None
    while "  0%" not in process.stdout.readline():
        assert process.poll() is None
    processes = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    assert (len(processes) > 3) == (backend == "local")
    for each in reversed(processes):
        each.terminate()
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 0, complaint
    assert "go on with: rlflow train --resume" in complaint
    [path] = (workdir / "runs").iterdir()
    run = package.Run(path)
    last = int(max(run.metrics["env_steps"]))
    assert run.checkpoints[-1].name == f"step_{last}" and run.status["state"] == "stopped"
    resumed = rlflow("train", "--resume", str(path), f"stop.env_steps={last + 1}")
    assert resumed.returncode == 0, resumed.stderr
    assert package.Run(path).status["state"] == "complete"


class TerminatesItself(Callback):
    def on_start(self, start: RunStart) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_without_a_checkpoint_is_no_success(workdir: Path) -> None:
    from rlflow.config_check import check_config
    from rlflow.config_source import source_of_arguments
    from rlflow.training import run_training

    config = check_config(source_of_arguments({"algorithm": "ppo", **SMALL}))
    with pytest.raises(TrainingInterrupted) as caught:
        run_training(config, [TerminatesItself()], stop_signals=[signal.SIGTERM])
    assert (caught.value.exit_code, caught.value.checkpoint) == (143, None)
