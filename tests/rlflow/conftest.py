"""A working folder of one's own, a small config in it, and the command line as a real process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).with_name("rlflow")
ENVIRONMENT = {**os.environ, "COLUMNS": "100"}

SMALL_CONFIG = """\
algorithm: ppo
env: CartPole-v1
seed: 3
stop: {env_steps: 600}
evaluation: {episodes: 2}
checkpoint: {every_env_steps: 200, keep: 2}
engine: {backend: inline}
num_envs: 4
rollout_length: 32
minibatch_size: 64
epochs: 2
"""

Command = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with ``small.yaml`` in it."""
    (tmp_path / "small.yaml").write_text(SMALL_CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def rlflow(workdir: Path) -> Command:
    """Runs ``rlflow ARGUMENTS`` in ``workdir`` and checks that no traceback ever reaches a person."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(PROGRAM), *arguments],
            cwd=workdir, env=ENVIRONMENT, capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        return done

    return run


@pytest.fixture
def start_rlflow(workdir: Path) -> Iterator[Start]:
    """Starts ``rlflow ARGUMENTS`` in ``workdir``; whatever still runs when the test ends is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [str(PROGRAM), *arguments],
            cwd=workdir, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
