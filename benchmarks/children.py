"""Runs one side of a comparison in a process of its own and reads the records it leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parent
ROOT = BENCHMARKS.parent
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONUNBUFFERED": "1"}
"""Nothing that changes how a side runs: thread counts and the like are its own defaults."""


class MissingPeers(RuntimeError):
    """The peers' environment has not been made."""


def python_of(side: str) -> str:
    """The interpreter a side runs in: the peers' environment for Ray and Stable-Baselines3, this one otherwise.

    Raises:
        MissingPeers: ``make peers`` has not run yet.
    """
    if side in ("ours", "pool", "executor"):
        return sys.executable
    if not PEERS_PYTHON.exists():
        raise MissingPeers(f"{PEERS_PYTHON.relative_to(ROOT)} does not exist: run `make peers` first")
    return str(PEERS_PYTHON)


@dataclass(frozen=True)
class Outcome:
    """What is left of a child: its records, and how it ended."""

    records: list[dict[str, Any]]
    exit_code: int | None
    """None when it had to be stopped."""
    stderr: str

    @property
    def how(self) -> str:
        if self.exit_code is None:
            return "timed out"
        last = self.stderr.strip().splitlines()[-1:] or [""]
        cause = f"signal {-self.exit_code}" if self.exit_code < 0 else f"exit code {self.exit_code}"
        return f"process ended with {cause}: {last[0]}".rstrip(": ")


def run_child(script: str, side: str, arguments: Sequence[str], timeout: float) -> Outcome:
    """Runs ``script`` with a side's Python, adding ``--out``; stops its whole group after ``timeout``."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        out, errors = Path(folder, "records.jsonl"), Path(folder, "stderr.txt")
        command = [python_of(side), str(BENCHMARKS / script), *arguments, "--out", str(out)]
        with errors.open("wb") as stderr:
            # A session of its own, so that a child that hangs can be stopped with all of its processes.
            child = subprocess.Popen(
                command, stdout=stderr, stderr=stderr, stdin=subprocess.DEVNULL, cwd=ROOT,
                env=os.environ | QUIET, start_new_session=True,
            )
            exit_code: int | None
            try:
                exit_code = child.wait(timeout)
            except subprocess.TimeoutExpired:
                exit_code = None
                _stop(child)
            except BaseException:
                _stop(child)
                raise
        return Outcome(_read(out), exit_code, errors.read_text(errors="replace")[-4000:])


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Ends the child's process group: with SIGTERM first, so that an engine can take its processes along."""
    for number, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        try:
            os.killpg(child.pid, number)
            child.wait(patience)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
