"""A working folder of one's own, a small config in it, and the command line as a real process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

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


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with ``small.yaml`` in it."""
    (tmp_path / "small.yaml").write_text(SMALL_CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command_line(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("rlflow")), *arguments]


@pytest.fixture
def rlflow(workdir: Path) -> Command:
    """Runs ``rlflow ARGUMENTS`` in ``workdir`` and checks that no traceback ever reaches a person."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command_line(*arguments),
            cwd=workdir, capture_output=True, text=True, timeout=100, check=False,
            env={**os.environ, "COLUMNS": "100"},
        )
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        return done

    return run
