"""What a run was made with: versions, machine and git state, for whoever wants to repeat it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from . import __version__

_PACKAGES = (
    "numpy",
    "gymnasium",
    "torch",
    "cloudpickle",
    "pyzmq",
    "lmdb",
    "msgspec",
    "pydantic",
    "safetensors",
)


def describe_environment(folder: Path) -> dict[str, Any]:
    """Versions, platform, command line, and the git state of ``folder``."""
    return {
        "rlflow": __version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "command": sys.argv,
        "working_folder": str(folder.resolve()),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "git": _git_state(folder),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_state(folder: Path) -> dict[str, Any] | None:
    """Commit, branch and whether anything is uncommitted; ``None`` outside a repository or without git."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {
        "commit": commit,
        "branch": _git(folder, "rev-parse", "--abbrev-ref", "HEAD"),
        "uncommitted_changes": [line[3:] for line in (changed or "").splitlines()],
    }


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.rstrip("\n") if done.returncode == 0 else None
