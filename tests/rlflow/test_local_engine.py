"""Training on worker processes: the same numbers as in one process, a history that stays, an end without remains."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import rlflow as package
from rlflow.callbacks import Callback, RunStart
from rlflow.engine.store_reader import StoreReader
from rlflow.run_folder import RunFolder
from rlflow.task_history import read_history, short_id, total_by_function

if TYPE_CHECKING:
    from .conftest import Command, Start

ON_WORKERS = ["engine.backend=local", "engine.num_cpus=2"]


def test_a_run_on_workers_gives_the_numbers_of_one_process_and_leaves_its_history(
    rlflow: Command, workdir: Path
) -> None:
    done = rlflow("train", "small.yaml", *ON_WORKERS, "name=workers", "env_groups=2")
    assert done.returncode == 0, done.stderr
    assert "2 CPUs · local engine" in done.stdout
    done = rlflow("train", "small.yaml", "name=alone", "env_groups=2")
    assert done.returncode == 0, done.stderr
    workers, alone = package.Run("runs/workers"), package.Run("runs/alone")
    assert workers.evaluation == alone.evaluation
    assert list(workers.metrics["policy_loss"]) == list(alone.metrics["policy_loss"])

    history = read_history(RunFolder(Path("runs/workers")))
    rollouts = [task for task in history if task.function == "rollout"]
    assert {task.outcome for task in rollouts} == {"finished"}
    assert len(rollouts) == 2 * len(workers.metrics)
    assert all(task.kind == "task" and task.worker and task.duration for task in rollouts)
    [total] = [total for total in total_by_function(history) if total.function == "rollout"]
    assert (total.count, total.retried) == (len(rollouts), 0)

    table = rlflow("tasks", "workers", "--limit", "3")
    assert table.returncode == 0, table.stderr
    lines = table.stdout.splitlines()
    assert lines[0].split() == ["task", "function", "attempts", "worker", "duration", "outcome"]
    assert [line.split()[0] for line in lines[1:4]] == [short_id(task.task_id) for task in history[-3:]]
    assert lines[4] == f"3 of {len(history)} tasks and calls shown"
    assert any(line.split()[:2] == ["rollout", str(len(rollouts))] for line in lines[5:])

    everything = json.loads(rlflow("tasks", "workers", "--limit", "0", "--json").stdout)
    assert [task["task_id"] for task in everything] == [task.task_id for task in history]
    assert rlflow("tasks", "workers", "--failed").stdout.startswith("no failed tasks\n")


def test_a_failed_task_is_reported_and_found_in_the_history(rlflow: Command, workdir: Path) -> None:
    (workdir / "mine.py").write_text(
        "import gymnasium\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n\n"
        "class Brittle(CartPoleEnv):\n"
        "    def step(self, action):\n"
        "        raise OSError('the cable is loose')\n\n"
        "gymnasium.register('Brittle-v0', Brittle)\n"
    )
    done = rlflow("train", "small.yaml", *ON_WORKERS, "env=mine:Brittle-v0", "name=brittle")
    assert done.returncode == 1
    first, reason, *_ = done.stderr.splitlines()
    assert first.startswith("rlflow: mine:Brittle-v0 raised in step(): env 0 on worker ")
    assert ", seed " in first and ", last action " in first
    assert reason == "  OSError: the cable is loose"

    failed = json.loads(rlflow("tasks", "brittle", "--failed", "--json").stdout)
    outcomes = {task["function"]: task["outcome"] for task in failed}
    assert outcomes.pop("rollout") == "failed"
    assert outcomes == {}  # what the end of the run cut short has not failed
    assert "cable is loose" in rlflow("tasks", "brittle", "--failed").stdout


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_saves_the_run_and_leaves_no_process(
    start_rlflow: Start, workdir: Path, number: signal.Signals, code: int
) -> None:
    process = start_rlflow("train", "small.yaml", *ON_WORKERS, "stop.env_steps=1000000000")
    assert process.stdout is not None
    for line in process.stdout:
        if " steps " in line and "return" in line:
            break
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # what a terminal does: every process of the group gets it
    else:
        process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err and f"{number.name}: stopped. The last checkpoint is runs/" in err
    # That no process, socket or shared memory is left is checked after every test (tests/conftest.py).


class KillsARolloutWorker(Callback):
    """After the second iteration, kills a process that ran rollouts, as the kernel would when memory runs out."""

    def __init__(self) -> None:
        self.killed: list[str] = []
        self._iterations = 0

    def on_start(self, start: RunStart) -> None:
        self._store = start.folder.store

    def on_iteration(self, metrics: dict[str, float]) -> None:
        self._iterations += 1
        if self._iterations != 2:
            return
        with StoreReader(self._store) as reader:
            worker = next(task.worker for task in reader.tasks() if task.function == "rollout" and task.worker)
            joined = next(
                event.detail for event in reader.events() if (event.kind, event.subject) == ("joined", worker)
            )
        os.kill(int(joined.rpartition("pid ")[2]), signal.SIGKILL)
        self.killed.append(worker)


def test_a_killed_rollout_worker_changes_no_number(workdir: Path) -> None:
    def run(backend: str, *callbacks: Callback) -> package.Run:
        return package.train(
            "ppo", env="CartPole-v1", seed=3, num_envs=4, env_groups=2, rollout_length=32, minibatch_size=64, epochs=2,
            stop={"env_steps": 600}, evaluation={"episodes": 2}, engine={"backend": backend, "num_cpus": 2},
            progress=False, callbacks=callbacks,
        )  # fmt: skip

    killer = KillsARolloutWorker()
    survivor, undisturbed = run("local", killer), run("inline")
    assert killer.killed
    assert survivor.evaluation == undisturbed.evaluation
    assert list(survivor.metrics["policy_loss"]) == list(undisturbed.metrics["policy_loss"])
