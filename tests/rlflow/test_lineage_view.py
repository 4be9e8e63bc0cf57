"""``rlflow actors`` and ``rlflow lineage``, on the store of a small run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Command


@pytest.fixture
def run(rlflow: Command, workdir: Path) -> str:
    assert rlflow("train", "small.yaml", "stop.env_steps=300", "engine.backend=local").returncode == 0
    [folder] = (workdir / "runs").iterdir()
    return folder.name


def test_actors_and_lineage_of_a_run(rlflow: Command, run: str) -> None:
    listed = rlflow("actors", run)
    assert listed.returncode == 0 and "PPOLearner" in listed.stdout and "dead" in listed.stdout
    [learner] = json.loads(rlflow("actors", run, "--json").stdout)
    assert learner["calls"] >= 3 and learner["restarts"] == 0

    tasks = json.loads(rlflow("tasks", run, "--json", "--limit", "0").stdout)
    update = [task for task in tasks if task["function"] == "PPOLearner.update"][-1]
    assert update["actor_id"] == learner["actor_id"]
    tree = rlflow("lineage", run, update["task_id"], "--depth", "2").stdout
    assert "PPOLearner.update · call" in tree and "rollout · task" in tree and "--depth shows more" in tree
    graph = json.loads(rlflow("lineage", run, update["task_id"], "--json").stdout)
    assert graph["task"]["task_id"] == update["task_id"] and len(graph["made_from"]) == 2


def test_what_names_nothing_or_too_much_is_said(rlflow: Command, run: str) -> None:
    for object_id, said in [("xyz", "is no id"), ("ff" * 14, "has the id"), ("", "is the beginning of")]:
        done = rlflow("lineage", run, object_id)
        assert done.returncode == 2
        assert said in done.stderr
