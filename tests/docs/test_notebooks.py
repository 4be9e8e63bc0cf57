"""The notebooks run from top to bottom, and say nothing that a reader would take for a fault."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from documents import ROOT
from nbclient import NotebookClient

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def execute(notebook: Any, folder: Path) -> Any:
    """The notebook with its outputs; it ran in ``folder``."""
    client = NotebookClient(notebook, timeout=100, resources={"metadata": {"path": str(folder)}})
    return asyncio.run(client.async_execute())  # its own loop would stay open


def texts(cell: Any) -> list[str]:
    """What a cell printed or displayed, as text."""
    return [
        output.get("text") or "".join(output.get("data", {}).get("text/html", "") or str(output.get("ename", "")))
        for output in cell.get("outputs", [])
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path: Path, tmp_path: Path) -> None:
    notebook = execute(nbformat.read(path, as_version=4), tmp_path)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output.get("name") != "stderr", f"{cell.source}\n{output.text}"


def test_the_example_of_callbacks_runs(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "callbacks.py")], cwd=tmp_path, capture_output=True, text=True,
        timeout=100, check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "best of 4 evaluations" in ended.stdout and "ended after 20," in ended.stdout
    assert (tmp_path / "best" / "manifest.json").is_file()
    [run] = (tmp_path / "runs").iterdir()
    assert "return_per_second" in (run / "metrics.jsonl").read_text()


INTERRUPTED = """
import os, signal
import rlflow
from rlflow.callbacks import Callback

class StopButton(Callback):
    def on_iteration(self, metrics):
        if metrics["iteration"] == 2:
            os.kill(os.getpid(), signal.SIGINT)  # as Jupyter does

small = dict(env="CartPole-v1", seed=3, stop={"env_steps": 600}, evaluation={"episodes": 2}, num_envs=4,
             rollout_length=32, minibatch_size=64, epochs=2, engine={"num_cpus": 1}, name="run")
"""


def test_the_stop_button_keeps_a_run_that_goes_on(tmp_path: Path) -> None:
    """One card, redrawn in place; no traceback; the cell can be run again; the run goes on in another cell."""
    train = 'print("in %d" % len(os.listdir("runs") if os.path.isdir("runs") else []))\n'
    train += 'rlflow.train("ppo", **small, callbacks=[StopButton()])'
    sources = [
        INTERRUPTED, train, train, 'run = rlflow.load("run"); print(run.status["state"])',
        'run.resume()\nprint(run.status["state"], len(run.metrics))', "run",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    for cell in notebook.cells[1:3]:
        cell.metadata["tags"] = ["raises-exception"]
    executed = execute(notebook, tmp_path)
    first, second, loaded, resumed, shown = executed.cells[1:]
    for cell in (first, second):
        _, drawn, error = cell.outputs  # one display, whatever the number of pictures
        assert "stopped" in drawn.data["text/html"]
        assert error.ename == "TrainingInterrupted" and len(error.traceback) == 1
        assert "resume() goes on" in error.traceback[0]
    assert texts(second)[0] == "in 1\n"
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["run", "run_2"]
    assert texts(loaded) == ["stopped\n"]
    assert "complete" in texts(resumed)[0] and texts(resumed)[-1] == "complete 5\n"
    assert "<polyline" in texts(shown)[0]
