"""What a run writes beside its metrics: events for TensorBoard, wandb's files, times and memory, a quiet log."""

from __future__ import annotations

import importlib.util
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import rlflow as package
from rlflow.callbacks import Callback
from rlflow.errors import InputError
from rlflow.run_folder import RunFolder
from rlflow.run_log import REPEATS, Repetitions, log_to
from rlflow.trackers import TensorBoard, make_trackers

if TYPE_CHECKING:
    from .conftest import Command

SMALL: dict[str, Any] = {
    "env": "CartPole-v1", "seed": 3, "stop": {"env_steps": 600},
    "evaluation": {"episodes": 2, "every_env_steps": 300}, "checkpoint": {"every_env_steps": 200, "keep": 2},
    "engine": {"backend": "inline"}, "num_envs": 4, "rollout_length": 32, "minibatch_size": 64, "epochs": 2,
}  # fmt: skip


def scalars(folder: Path) -> Any:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return events


def test_tensorboard_has_the_metrics_by_env_steps(workdir: Path) -> None:
    run = package.train("ppo", **SMALL, trackers=["tensorboard"], progress=False)
    events = scalars(run.path)
    kl = [(event.step, event.value) for event in events.Scalars("train/kl")]
    assert [step for step, _ in kl] == list(run.metrics["env_steps"])
    assert [value for _, value in kl] == pytest.approx(list(run.metrics["kl"]))
    between = RunFolder(run.path).read_evaluations()
    evaluations = [event.step for event in events.Scalars("evaluation/mean_return")]
    assert evaluations == [row["env_steps"] for row in between] + [run.status["env_steps"]]
    assert "time/rollout" in events.Tags()["scalars"]

    for checkpoint in run.checkpoints[1:]:  # as if the run had been killed after its first one
        for file in checkpoint.iterdir():
            file.unlink()
        checkpoint.rmdir()
    (run.path / "evaluation.json").unlink()
    run.resume(progress=False)
    again = [event.step for event in scalars(run.path).Scalars("train/kl")]
    assert again == list(run.metrics["env_steps"]), "no step is there twice"


def test_tensorboard_is_on_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    assert [type(tracker) for tracker in make_trackers(None)] == [TensorBoard]
    assert make_trackers([]) == []
    found = importlib.util.find_spec
    monkeypatch.setattr("rlflow.trackers.find_spec", lambda name: None)
    assert make_trackers(None) == []
    with pytest.raises(InputError, match=r"tensorboard is not installed: pip install 'rlflow\[tensorboard\]'"):
        make_trackers(["tensorboard"])
    assert found("tensorboard")


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="an extra that CI does without")
def test_wandb_writes_its_files_without_an_account(
    rlflow: Command, workdir: Path
) -> None:
    done = rlflow("train", "small.yaml", "trackers=[wandb]")  # a process of its own: wandb leaves threads and files
    assert done.returncode == 0, done.stderr
    [run] = (workdir / "runs").iterdir()
    assert "WeightsAndBiases" not in (run / "log.txt").read_text(), "it complains of nothing"
    assert list((run / "wandb").glob("offline-run-*/*.wandb"))


class FullDisk(TensorBoard):
    def send(self, *arguments: Any) -> None:
        raise OSError("no space left")


def test_a_tracker_that_fails_does_not_end_the_run(workdir: Path) -> None:
    run = package.train("ppo", **SMALL, trackers=[], callbacks=[FullDisk()], progress=False)
    assert run.status["state"] == "complete"
    assert (run.path / "log.txt").read_text().count("FullDisk gets nothing more of this run: OSError") == 1


def test_times_and_memory_are_written(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlflow.system_monitor.SECONDS", 0.0)
    run = package.train("ppo", **SMALL, trackers=[], progress=False)
    lines = [json.loads(line) for line in (run.path / "system.jsonl").read_text().splitlines()]
    assert [line["env_steps"] for line in lines][:-1] == list(run.metrics["env_steps"])
    seconds = lines[0]["seconds"]
    assert seconds["rollout"] == pytest.approx(run.metrics["time_rollout"][0])
    assert seconds["rollout"] + seconds["learn"] <= seconds["wall"]
    assert lines[-1]["memory"]["driver"] > 10 * 2**20 and lines[-1]["processes"] >= 1


class Floods(Callback):
    def on_iteration(self, metrics: dict[str, float]) -> None:
        for number in range(50):
            logging.getLogger("rlflow").warning("wheel %d squeaks", number)


def test_a_log_is_not_flooded(workdir: Path) -> None:
    run = package.train("ppo", **SMALL, trackers=[], callbacks=[Floods()], progress=False)
    text = (run.path / "log.txt").read_text()
    assert text.count("squeaks") == REPEATS + 1
    assert f"'wheel %d squeaks' came {50 * len(run.metrics) - REPEATS} more times" in text


def test_a_message_that_was_held_back_says_so_when_it_comes_again() -> None:
    repetitions = Repetitions()

    def record(at: float) -> logging.LogRecord:
        made = logging.LogRecord("rlflow", logging.INFO, "a.py", 1, "squeak", (), None)
        made.created = at
        return made

    passed = [repetitions.filter(record(float(second))) for second in range(REPEATS + 3)]
    assert passed == [True] * REPEATS + [False] * 3
    later = record(100.0)
    assert repetitions.filter(later) and later.msg == "squeak (and 3 more like it in 100 s)"
    assert not repetitions.held_back()


def test_a_log_is_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlflow.run_log.MAX_BYTES", 2000)
    with log_to(tmp_path / "log.txt"):
        for number in range(200):
            logging.getLogger("rlflow").info(f"message {number}")
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["log.txt", "log.txt.1", "log.txt.2", "log.txt.3"]
    assert all(path.stat().st_size <= 2000 for path in tmp_path.iterdir())
