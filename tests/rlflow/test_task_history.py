"""``rlflow tasks`` on a store that a crash has left its marks in."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from rlflow import engine
from rlflow.lineage_view import read_actors
from rlflow.run_folder import RunFolder
from rlflow.task_history import print_history, read_history, read_incidents


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    engine.init(num_cpus=1, store=tmp_path / "store")
    yield RunFolder(tmp_path)
    engine.shutdown()


@engine.remote
def crashes_once(path: Path) -> int:
    if not path.exists():
        path.touch()
        os._exit(7)
    return 1


@engine.remote
class Learner:
    def learn(self) -> int:
        return 1


def test_why_there_were_several_attempts(run: RunFolder) -> None:
    ref = crashes_once.remote(run.path / "crashed")
    assert engine.get(ref) == 1
    engine.shutdown()
    told = io.StringIO()
    tasks = read_history(run)
    print_history(Console(file=told, width=200), tasks, tasks, "tasks", 0, read_incidents(run))
    [row] = [line for line in told.getvalue().splitlines() if "crashes_once" in line and "before" in line]
    assert "finished; before: worker w1 (pid " in row and row.rstrip().endswith("exited with code 7")


def test_how_an_actor_ended_is_said_once(run: RunFolder) -> None:
    learner = Learner.remote()
    assert engine.get(learner.learn.remote()) == 1
    engine.kill(learner)
    engine.shutdown()
    [actor] = read_actors(run)
    assert (actor.state, actor.detail) == ("dead", "it was killed by kill()")
