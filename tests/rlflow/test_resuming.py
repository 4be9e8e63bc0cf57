"""A run that ended early goes on: nothing lost that a checkpoint holds, nothing counted twice."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import rlflow as rlflow_package
from rlflow.run import Run
from rlflow.run_folder import RunFolder

if TYPE_CHECKING:
    from .conftest import Command, Start

DEADLINE = 60.0
SMALL: dict[str, Any] = {  # as small.yaml
    "env": "CartPole-v1", "seed": 3, "stop": {"env_steps": 600}, "evaluation": {"episodes": 2},
    "checkpoint": {"every_env_steps": 200, "keep": 2}, "engine": {"backend": "inline"},
    "num_envs": 4, "rollout_length": 32, "minibatch_size": 64, "epochs": 2,
}  # fmt: skip
STEPS = "stop.env_steps=4000"


def the_run(workdir: Path) -> Path:
    [run] = (workdir / "runs").iterdir()
    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was never stopped."""
    folder = tmp_path_factory.mktemp("trained")
    run = rlflow_package.train("ppo", **SMALL, runs_dir=str(folder / "runs"), progress=False)
    return run.path


@pytest.fixture
def run(trained: Path, workdir: Path) -> Path:
    """A copy of it in ``runs/``."""
    return shutil.copytree(trained, workdir / "runs" / trained.name)


def numbers(run: Path) -> list[dict[str, Any]]:
    """All metrics but those that a clock gives."""
    clocks = ("time_", "steps_per_second")
    rows = RunFolder(run).read_metrics()
    return [{key: value for key, value in row.items() if not key.startswith(clocks)} for row in rows]


@pytest.mark.parametrize(
    ("backend", "number"), [("inline", signal.SIGKILL), ("inline", signal.SIGINT), ("local", signal.SIGKILL)]
)
def test_a_run_that_was_stopped_gives_the_numbers_of_one_that_was_not(
    rlflow: Command, start_rlflow: Start, workdir: Path, backend: str, number: signal.Signals
) -> None:
    config = ["train", "small.yaml", STEPS, f"engine.backend={backend}", "env_groups=2"]
    assert rlflow(*config, "runs_dir=undisturbed").returncode == 0
    process = start_rlflow(*config)
    wait_for_checkpoint(workdir)
    assert process.poll() is None, "it was to be stopped in the middle"
    process.send_signal(number)
    process.communicate(timeout=DEADLINE)

    run = the_run(workdir)
    before = len(RunFolder(run).read_metrics())
    resumed = rlflow("train", "--resume", str(run))
    assert resumed.returncode == 0, resumed.stderr
    assert "going on from" in resumed.stdout
    [undisturbed] = (workdir / "undisturbed").iterdir()
    assert numbers(run) == numbers(undisturbed) and len(numbers(run)) > before
    assert Run(run).evaluation == Run(undisturbed).evaluation
    times = [row["time_total"] for row in RunFolder(run).read_metrics()]
    assert times == sorted(times)


def wait_for_checkpoint(workdir: Path) -> None:
    deadline = time.monotonic() + DEADLINE
    while not list(workdir.glob("runs/*/checkpoints/step_*")):
        assert time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.005)


def test_a_complete_run_says_so_and_trains_on_when_its_end_is_raised(
    rlflow: Command, run: Path, workdir: Path
) -> None:
    assert rlflow("train", "small.yaml", "stop.env_steps=1200", "runs_dir=longer").returncode == 0
    done = rlflow("train", "--resume", run.name)
    assert done.returncode == 0
    assert "is complete, with 612 env steps; to train on, raise the end: stop.env_steps=1224" in done.stdout
    assert rlflow("train", "--resume", run.name, "stop.env_steps=1200").returncode == 0
    [longer] = (workdir / "longer").iterdir()
    assert numbers(run) == numbers(longer)
    assert Run(run).config["stop"]["env_steps"] == 1200


def test_what_was_written_after_the_checkpoint_is_taken_back(rlflow: Command, run: Path) -> None:
    whole = numbers(run)
    checkpoints = Run(run).checkpoints
    shutil.rmtree(checkpoints[-1])
    (run / "evaluation.json").unlink()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"env_steps": 7')  # a crash in the middle of a line
    assert rlflow("train", "--resume", run.name).returncode == 0
    assert numbers(run) == whole


def test_a_run_without_a_checkpoint_begins_again(rlflow: Command, run: Path) -> None:
    whole = numbers(run)
    shutil.rmtree(run / "checkpoints")
    assert rlflow("train", "--resume", run.name).returncode == 0
    assert numbers(run) == whole
    assert "no checkpoint yet: it begins again" in (run / "log.txt").read_text()


def test_a_damaged_checkpoint_gives_way_to_the_one_before(rlflow: Command, run: Path) -> None:
    whole = numbers(run)
    newest = Run(run).checkpoints[-1]
    (newest / "manifest.json").write_text("{")
    (run / "evaluation.json").unlink()
    assert rlflow("train", "--resume", run.name).returncode == 0
    assert numbers(run) == whole
    json.loads((newest / "manifest.json").read_text())  # written anew


def test_when_no_checkpoint_can_be_read_nothing_is_touched(rlflow: Command, run: Path) -> None:
    for checkpoint in Run(run).checkpoints:
        (checkpoint / "manifest.json").write_text("{")
    (run / "evaluation.json").unlink()
    metrics = (run / "metrics.jsonl").read_bytes()
    done = rlflow("train", "--resume", run.name)
    assert done.returncode == 1 and "manifest.json is damaged" in done.stderr
    assert (run / "metrics.jsonl").read_bytes() == metrics


def test_two_processes_do_not_train_into_one_folder(rlflow: Command, start_rlflow: Start, workdir: Path) -> None:
    process = start_rlflow("train", "small.yaml", "stop.env_steps=100000000")
    wait_for_checkpoint(workdir)
    done = rlflow("train", "--resume", str(the_run(workdir)))
    assert done.returncode == 2
    assert f"is being trained by another process (pid {process.pid})" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--resume", "nowhere"], "there is no run 'nowhere'"),
        (["--resume", "RUN", "lr=1e-4"], "a run that goes on keeps its lr"),
        (["--resume", "RUN", "--seed", "1"], "a run that goes on keeps its seed"),
        (["small.yaml", "--resume", "RUN"], "give either a config or --resume, not both"),
        ([], "nothing to train: give a config"),
    ],
)
def test_what_cannot_be_resumed_is_said(rlflow: Command, run: Path, arguments: list[str], said: str) -> None:
    done = rlflow("train", *(run.name if word == "RUN" else word for word in arguments))
    assert done.returncode == 2
    assert said in done.stderr
