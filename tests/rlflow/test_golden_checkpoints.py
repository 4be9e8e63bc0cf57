"""Checkpoints that an earlier rlflow wrote: they still load, act as they did, and are trained on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import rlflow

GOLDEN = sorted(Path(__file__).with_name("golden").iterdir())


@pytest.fixture(params=GOLDEN, ids=lambda path: path.name)
def golden(request: pytest.FixtureRequest, workdir: Path) -> rlflow.Run:
    return rlflow.load(shutil.copytree(request.param, workdir / "runs" / request.param.name))


def test_an_old_checkpoint_acts_as_it_did(golden: rlflow.Run) -> None:
    expected = json.loads((golden.path / "expected.json").read_text())
    assert golden.evaluate(2).returns == expected["returns"]


def test_an_old_run_goes_on(golden: rlflow.Run) -> None:
    steps = int(golden.checkpoints[-1].name.removeprefix("step_"))
    golden.resume(stop={"env_steps": steps + 1}, progress=False)
    assert golden.status["state"] == "complete" and max(golden.metrics["env_steps"]) > steps
    assert list(golden.metrics["iteration"]) == list(range(1, len(golden.metrics) + 1))
