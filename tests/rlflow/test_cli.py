"""The command line as real processes: exit codes, what is said, and never a traceback."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Command, Start

ENDLESS = ["stop.env_steps=1000000000", "checkpoint.every_env_steps=null"]


def the_run(workdir: Path) -> Path:
    [run] = (workdir / "runs").iterdir()
    return run


def test_help_and_version_are_immediate_and_import_nothing_heavy(rlflow: Command) -> None:
    assert rlflow("--version").stdout.startswith("rlflow ")
    assert all(verb in rlflow("--help").stdout for verb in ("train", "tasks", "plot"))
    heavy = ("torch", "numpy", "gymnasium", "lmdb", "pydantic", "zmq")
    code = f"import rlflow.cli, sys; print([module for module in {heavy} if module in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_train_shows_progress_evaluates_and_says_where_the_run_lies(rlflow: Command, workdir: Path) -> None:
    done = rlflow("train", "small.yaml", "lr=1e-3", "--seed", "7")
    assert done.returncode == 0, done.stderr
    run = the_run(workdir)
    lines = done.stdout.splitlines()
    assert lines[0].endswith("small.yaml")
    assert lines[1].startswith("ppo on CartPole-v1 · seed 7 · 600 env steps · ")
    assert f"run runs/{run.name}" in lines
    assert any(" steps 100%: return " in line for line in lines)
    assert any(line.startswith("evaluation ") and "over 2 episodes" in line for line in lines)
    assert f"next rlflow tasks runs/{run.name}" in lines

    again = rlflow("train", f"runs/{run.name}/config.yaml", "name=again", "evaluation.episodes=0")
    assert again.returncode == 0, again.stderr
    assert (workdir / "runs" / "again" / "metrics.jsonl").is_file()
    assert rlflow("plot", run.name, "again", "--out", "curve.png").stdout == "wrote curve.png\n"
    assert (workdir / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert rlflow("plot", run.name, "--out", "curve.nope").returncode == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "nosuch.yaml"], "nosuch.yaml: there is no such file"),
        (["train", "small.yaml", "env=CartPol-v1"], "unknown env 'CartPol-v1'; did you mean 'CartPole-v1'"),
        (["train", "small.yaml", "algorithm=pp"], "unknown algorithm 'pp'; did you mean 'ppo'?"),
        (["train", "small.yaml", "gamma=high"], "override 'gamma=high': gamma: expected a number, got 'high'"),
        (["train", "small.yaml", "runs_dir=small.yaml"], "cannot make the run folder small.yaml/"),
        (["train", "small.yaml", "--seed", "x"], "Invalid value for '--seed'"),
        (["train"], "nothing to train"),
        (["tasks", "nosuch"], "there is no run 'nosuch'"),
        (["plot", "nosuch"], "there is no run 'nosuch'"),
    ],
)
def test_bad_input_is_exit_code_2_with_one_clear_error(rlflow: Command, arguments: list[str], said: str) -> None:
    done = rlflow(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert not Path("runs").exists()


def test_a_subclass_in_the_working_folder_trains_by_its_name(rlflow: Command, workdir: Path) -> None:
    (workdir / "mine.py").write_text(
        "from rlflow.algorithms.ppo import PPO\n\n"
        "class Mine(PPO):\n"
        "    def training_step(self):\n"
        "        return {**super().training_step(), 'mine': 1.0}\n"
    )
    done = rlflow("train", "small.yaml", "algorithm=mine:Mine", "stop.env_steps=100")
    assert done.returncode == 0, done.stderr
    first = json.loads((the_run(workdir) / "metrics.jsonl").read_text().splitlines()[0])
    assert first["mine"] == 1.0


def test_a_failure_while_running_is_exit_code_1_and_points_to_the_log(rlflow: Command, workdir: Path) -> None:
    (workdir / "mine.py").write_text(
        "from rlflow.algorithms.ppo import PPO\n\n"
        "class Mine(PPO):\n"
        "    def training_step(self):\n"
        "        raise RuntimeError('no luck today')\n"
    )
    done = rlflow("train", "small.yaml", "algorithm=mine:Mine")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "rlflow: RuntimeError: no luck today",
        "  at mine.py, line 5",
        f"The traceback is in runs/{the_run(workdir).name}/log.txt",
    ]
    assert "no luck today" in (the_run(workdir) / "log.txt").read_text()


def test_a_state_that_cannot_be_saved_is_named(rlflow: Command, workdir: Path) -> None:
    (workdir / "mine.py").write_text(
        "from rlflow.algorithms.ppo import PPO\n\n"
        "class Mine(PPO):\n"
        "    def state(self):\n"
        "        return {**super().state(), 'seen': {1, 2}}\n"
    )
    done = rlflow("train", "small.yaml", "algorithm=mine:Mine")
    assert done.returncode == 1
    assert "state at /seen: a set cannot be saved" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_signals_end_the_run_with_a_checkpoint(
    start_rlflow: Start, workdir: Path, number: signal.Signals, code: int
) -> None:
    process = start_rlflow("train", "small.yaml", *ENDLESS)
    assert process.stdout is not None
    for line in process.stdout:  # until the first iteration was reported
        if " steps " in line and "return" in line:
            break
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert f"{number.name}: stopping after this iteration" in out
    [checkpoint] = (the_run(workdir) / "checkpoints").iterdir()
    assert f"{number.name}: stopped. The last checkpoint is runs/" in err and checkpoint.name in err
    assert "Traceback" not in err


def test_a_run_on_the_inline_engine_has_no_history_and_says_so(rlflow: Command, workdir: Path) -> None:
    assert rlflow("train", "small.yaml", "stop.env_steps=100").returncode == 0
    done = rlflow("tasks", the_run(workdir).name)
    assert done.returncode == 2
    assert "has no task history: it ran on the inline engine" in done.stderr
