"""The folder of one run: where each file lies, and how it is written and read."""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from .checkpoint import read_manifest, rewrite_about, save_checkpoint
from .errors import CheckpointError, InputError

_STEP = re.compile(r"^step_(\d+)$")


class RunFolder:
    """Paths and files of one run; the folder exists already (see :meth:`create`)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.yaml"
        self.metrics_file = path / "metrics.jsonl"
        self.evaluation_file = path / "evaluation.json"
        self.evaluations_file = path / "evaluations.jsonl"
        self.environment_file = path / "environment.json"
        self.system_file = path / "system.jsonl"
        self.status_file = path / "status.json"
        self.log_file = path / "log.txt"
        self.checkpoints = path / "checkpoints"
        self.store = path / "store"

    @classmethod
    def create(cls, runs_dir: Path, name: str) -> RunFolder:
        """Makes ``runs_dir/name``, or ``name_2``, ``name_3``, ...: a run never writes into another's folder.

        Raises:
            InputError: the folder cannot be made or written.
        """
        candidate, number = name, 1
        while True:
            path = runs_dir / candidate
            try:
                path.mkdir(parents=True)
                probe = path / "checkpoints"
                probe.mkdir()
                return cls(path)
            except FileExistsError:
                if not path.is_dir():
                    raise InputError(
                        f"cannot make the run folder {path}: a file of that name is in the way; "
                        "set runs_dir or name to something else"
                    ) from None
                number += 1
                candidate = f"{name}_{number}"
            except OSError as error:
                hint = "set runs_dir=<a folder you may write>"
                raise InputError(f"cannot make the run folder {path}: {error.strerror}; {hint}") from None

    def write_config(self, values: Mapping[str, Any]) -> None:
        """The complete config; ``rlflow train`` takes the file as it is."""
        self.config_file.write_text(config_as_yaml(values), encoding="utf-8")

    def append_metrics(self, metrics: Mapping[str, float]) -> None:
        """One line an iteration, written before the next begins. NaN and infinity become ``null``."""
        _append(self.metrics_file, {key: finite(value) for key, value in metrics.items()})

    def append_evaluation(self, summary: Mapping[str, Any]) -> None:
        """One line for each evaluation during training."""
        _append(self.evaluations_file, summary)

    def append_system(self, line: Mapping[str, Any]) -> None:
        """One line of times and memory."""
        _append(self.system_file, line)

    def cut_back(self, env_steps: int) -> float:
        """Takes back what was written past ``env_steps``; returns the run's time so far, in seconds."""
        for file in (self.metrics_file, self.evaluations_file, self.system_file):
            if file.is_file():
                kept = [row for row in _read_rows(file) if row["env_steps"] <= env_steps]
                partial = file.with_suffix(".partial")
                partial.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
                partial.replace(file)
        rows = self.read_metrics()
        return float(rows[-1].get("time_total") or 0.0) if rows else 0.0

    def write_status(self, state: str, env_steps: int, reason: str) -> None:
        """How the run stands: ``"running"``, ``"complete"``, ``"stopped"`` or ``"failed"``, and why."""
        partial = self.status_file.with_suffix(".partial")
        self.write_json(partial, {"state": state, "env_steps": env_steps, "reason": reason, "at": time.time()})
        partial.replace(self.status_file)

    def read_status(self) -> dict[str, Any]:
        """What :meth:`write_status` wrote; a run whose process is gone without a word is ``"stopped"``, too."""
        status: dict[str, Any] = {"state": "running", "env_steps": 0, "reason": ""}  # until the engine is up
        if self.status_file.is_file():
            status = json.loads(self.status_file.read_text(encoding="utf-8"))
        if status["state"] == "running" and not self.is_running():
            status.update(state="stopped", reason="its process ended without a word")
        return status

    def is_running(self) -> bool:
        """Whether a process of this machine trains into the folder now.

        It holds the folder's lock, which is looked up and not tried: to try it would keep a run from starting.
        """
        try:
            lock = self.path / ".lock"
            holder, number = lock.read_text().strip(), lock.stat().st_ino
            locks = Path("/proc/locks").read_text()
        except OSError:
            return False
        # "1: FLOCK  ADVISORY  WRITE 4242 00:2b:123456 0 EOF"
        held = (line.split() for line in locks.splitlines() if "FLOCK" in line and "->" not in line)
        return any(fields[4] == holder and fields[5].rpartition(":")[2] == str(number) for fields in held)

    def is_evaluated(self, episodes: int) -> bool:
        """Whether the run's evaluation, if it is to have one, is there."""
        return not episodes or self.evaluation_file.is_file()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """While open, no other process may train into this folder.

        Raises:
            InputError: one does.
        """
        descriptor = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(descriptor, 32, 0).decode() or "unknown"
                raise InputError(
                    f"{shown_path(self.path)} is being trained by another process (pid {holder}); "
                    "stop that one first, or wait for its end"
                ) from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def read_metrics(self) -> list[dict[str, Any]]:
        """All lines of ``metrics.jsonl``; a last line that a crash cut short is left out."""
        return _read_rows(self.metrics_file)

    def read_evaluations(self) -> list[dict[str, Any]]:
        """Those during training, in order; the one at the end is in ``evaluation.json``."""
        return _read_rows(self.evaluations_file)

    def read_config(self) -> dict[str, Any]:
        """``config.yaml``; empty when it cannot be read."""
        try:
            values = yaml.safe_load(self.config_file.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            return {}
        return values if isinstance(values, dict) else {}

    def read_evaluation(self) -> dict[str, Any] | None:
        """``evaluation.json``; ``None`` when there is none that can be read."""
        try:
            values = json.loads(self.evaluation_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return values if isinstance(values, dict) else None

    def write_json(self, path: Path, values: Mapping[str, Any]) -> None:
        path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")

    def save_checkpoint(self, env_steps: int, state: Mapping[str, Any], about: Mapping[str, Any], keep: int) -> Path:
        """Writes ``checkpoints/step_<env_steps>`` and deletes all but the newest ``keep`` and the best."""
        path = self.checkpoints / f"step_{env_steps}"
        save_checkpoint(path, state, {**about, "env_steps": env_steps})
        best = self.best_checkpoint()
        for old in self.list_checkpoints()[:-keep]:
            if old != best:
                shutil.rmtree(old)
        return path

    def score_checkpoint(self, path: Path, score: float) -> None:
        """Says how good a checkpoint is, by what :meth:`best_checkpoint` compares."""
        rewrite_about(path, {"score": finite(score)})

    def best_checkpoint(self) -> Path | None:
        """The one whose ``score`` is the highest, the newer of equals; ``None`` when none has one."""
        best, highest = None, -math.inf
        for path in self.list_checkpoints():
            try:
                score = read_manifest(path)["about"].get("score")
            except CheckpointError:
                continue  # a damaged one is nobody's best
            if score is not None and score >= highest:
                best, highest = path, score
        return best

    def list_checkpoints(self) -> list[Path]:
        """The checkpoints, oldest first."""
        if not self.checkpoints.is_dir():
            return []
        steps = [(int(match[1]), entry) for entry in self.checkpoints.iterdir() if (match := _STEP.match(entry.name))]
        return [entry for _, entry in sorted(steps)]


def _append(file: Path, row: Mapping[str, Any]) -> None:
    with file.open("a", encoding="utf-8") as opened:
        opened.write(json.dumps(row) + "\n")


def _read_rows(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        return []
    rows = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def find_run(name: str, runs_dir: str = "runs") -> RunFolder:
    """The run that a person means by ``name``: a path, or a name under ``runs_dir``.

    Raises:
        InputError: there is none; with the newest runs there are.
    """
    for path in (Path(name), Path(runs_dir) / name):
        if (path / "config.yaml").is_file():
            return RunFolder(path)
    if Path(name).is_dir():
        raise InputError(f"{name} is no run folder: it has no config.yaml")
    known = [entry for entry in _entries(Path(runs_dir)) if (entry / "config.yaml").is_file()]
    newest = sorted(known, key=lambda entry: entry.stat().st_mtime, reverse=True)[:5]
    hint = f"; the newest in {runs_dir}/: {', '.join(entry.name for entry in newest)}" if newest else ""
    raise InputError(f"there is no run {name!r}, neither as a folder nor in {runs_dir}/{hint}")


def config_as_yaml(values: Mapping[str, Any]) -> str:
    """A config as a person would write it: keys in their order, short lists and mappings on one line."""
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)


def default_name(algorithm: str, env: str, seed: int | None) -> str:
    """``ppo_CartPole-v1_0_20250131-174502``."""
    parts = [algorithm, env, "noseed" if seed is None else str(seed), time.strftime("%Y%m%d-%H%M%S")]
    return "_".join(re.sub(r"[^\w.-]+", "-", part) for part in parts)


def shown_path(path: Path) -> str:
    """The path as one would type it here: relative to the working folder where it lies in it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def finite(value: Any) -> Any:
    """JSON has no NaN: ``None`` for numbers that are none, everything else as it is."""
    plain = value.item() if hasattr(value, "item") else value  # of NumPy or torch
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []
